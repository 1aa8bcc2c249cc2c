"""Whether a column's value is among many, which are given as one parameter.

With a parameter for each, a statement of another length is another statement, and the database
reads and plans each anew.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from pydantic_core import to_json
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


def among(column: sa.Column[str], name: str) -> sa.ColumnElement[bool]:
    """True where the column is one of the texts that the parameter of this name holds.

    A NUL would end a text on SQLite; no id has one (see `choreo.envelope.text`).
    """
    given: sa.BindParameter[Any] = sa.bindparam(name, type_=_Texts())
    return column.bool_op("IN")(_Members(given))


class _Texts(sa.TypeDecorator[Collection[str]]):
    """An array on PostgreSQL, and JSON elsewhere."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        text = sa.Text()
        return dialect.type_descriptor(sa.ARRAY(text) if dialect.name == "postgresql" else text)

    def process_bind_param(self, value: Collection[str] | None, dialect: sa.Dialect) -> Any:
        texts = list(value or ())
        return texts if dialect.name == "postgresql" else to_json(texts).decode()


class _Members(FunctionElement[str]):
    """The texts as a query."""

    inherit_cache = True


@compiles(_Members)
def _of_json(members: _Members, compiler: SQLCompiler, **options: Any) -> str:
    given = compiler.process(members.clauses, **options)
    return f"(SELECT value FROM json_each({given}))"  # noqa: S608 - a parameter's place


@compiles(_Members, "postgresql")
def _of_array(members: _Members, compiler: SQLCompiler, **options: Any) -> str:
    return f"(SELECT unnest({compiler.process(members.clauses, **options)}))"
