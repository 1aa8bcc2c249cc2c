"""What comes of choreo's own statements that went past SQLAlchemy: as much as it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData


class Done:
    """What comes of a statement that returns no rows."""

    def __init__(self, rowcount: int) -> None:
        self.rowcount = rowcount


class Rows:
    """What comes of a statement that returns rows: SQLAlchemy's result, once it is needed."""

    def __init__(self, metadata: SimpleResultMetaData, found: Sequence[tuple[Any, ...]]) -> None:
        self._metadata = metadata
        self._found = found

    @cached_property
    def _result(self) -> IteratorResult[Any]:
        return IteratorResult(self._metadata, iter(self._found))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._result) if self._found else iter(())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._result, name)

    def scalar(self) -> Any:
        """The first column of the first row, or None."""
        return self._found[0][0] if self._found else None

    def mappings(self) -> Mappings:
        """The rows by the names of their columns."""
        return Mappings(list(self._metadata.keys), self._found)


class Mappings(list[dict[str, Any]]):
    """Rows by the names of their columns."""

    def __init__(self, names: Sequence[str], found: Sequence[tuple[Any, ...]]) -> None:
        super().__init__(dict(zip(names, row, strict=True)) for row in found)

    def all(self) -> list[dict[str, Any]]:
        """All rows."""
        return self

    def one(self) -> dict[str, Any]:
        """The one row that there is."""
        [row] = self
        return row

    def one_or_none(self) -> dict[str, Any] | None:
        """The one row that there is, if there is one."""
        return self.one() if self else None
