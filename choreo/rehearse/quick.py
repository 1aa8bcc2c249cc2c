"""A connection that runs choreo's own statements at the driver's speed.

SQLAlchemy makes the SQL, once for each statement and form of its parameters; then it is given to
sqlite3 as it is. That halves the time of a schedule. Whatever is not plain goes the usual way, and
so does all that handlers and setups ask: to them it is the connection that they have in production.

What a table says is known without asking as long as nothing was inserted: it is empty.
"""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.sql.elements import _IdentifiedClause

from choreo.log import in_hand
from choreo.rehearse.results import Done, Rows
from choreo.store import tables

#: So many statements that were seen once are remembered; those that are made anew each time are
#: never seen twice.
_MOST_SEEN = 1000

Processor = Callable[[Any], Any]


class Filled:
    """The tables of a database that may have rows."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._is_known = False

    def none_but(self, *names: str) -> None:
        """All others were emptied."""
        self._names = set(names)
        self._is_known = True

    def add(self, name: str) -> None:
        """A row is put into this table."""
        self._names.add(name)

    def forget(self) -> None:
        """Something was done of which nobody knows what it puts where."""
        self._is_known = False

    def is_empty(self, *names: str) -> bool:
        """Whether these tables have no row for certain."""
        return self._is_known and self._names.isdisjoint(names)


@dataclass(slots=True)
class _Source:
    """Where a positional parameter comes from."""

    name: str
    #: What it is where it is not given.
    constant: Any
    processor: Processor | None

    def __call__(self, given: Mapping[str, Any]) -> Any:
        value = given.get(self.name, self.constant)
        return value if self.processor is None else self.processor(value)


@dataclass(slots=True)
class _Form:
    """A statement with parameters of one form, ready to be run."""

    sql: str
    sources: list[_Source]
    metadata: SimpleResultMetaData | None
    #: Of each column, what its type makes of the value; empty if none does anything.
    processors: list[Processor | None]
    #: Takes the parameters, where all are taken as they are given.
    pick: Callable[[Mapping[str, Any]], Sequence[Any]] | None = None
    #: The table without whose rows it does nothing.
    needs: str | None = None
    #: The table that it inserts into.
    fills: str | None = None

    def values(self, given: Mapping[str, Any]) -> Sequence[Any]:
        """The positional parameters."""
        if self.pick is not None:
            return self.pick(given)
        return [source(given) for source in self.sources]

    def nothing(self) -> Any:
        """What comes of it where there are no rows."""
        return Done(0) if self.metadata is None else Rows(self.metadata, ())

    def run(self, driver: sqlite3.Connection, given: Mapping[str, Any]) -> Any:
        cursor = driver.execute(self.sql, self.values(given))
        if self.metadata is None:
            return Done(cursor.rowcount)
        rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
        if self.processors:
            rows = [
                tuple(
                    value if make is None else make(value)
                    for make, value in zip(self.processors, row, strict=True)
                )
                for row in rows
            ]
        return Rows(self.metadata, rows)

    def run_many(self, driver: sqlite3.Connection, given: Sequence[Mapping[str, Any]]) -> Any:
        return Done(driver.executemany(self.sql, map(self.values, given)).rowcount)


@dataclass(slots=True)
class _Known:
    """A statement that is run again and again, with what was worked out for it."""

    #: Kept, so that no other takes its id.
    statement: Any
    is_own: bool
    forms: dict[Any, _Form | None] = field(default_factory=dict)


_UNKNOWN: Any = object()
_PLAIN = (sa.Select, sa.Insert, sa.Update, sa.Delete)
#: What puts no row anywhere.
_HARMLESS = (sa.Select, sa.CompoundSelect, sa.Update, sa.Delete, _IdentifiedClause)


#: By the statement's id; all databases share it, as their dialect is the same.
_KNOWN: dict[int, _Known] = {}
_SEEN: dict[int, Any] = {}


def _see(statement: Any) -> None:
    if _SEEN.get(id(statement)) is statement:
        _KNOWN[id(statement)] = _Known(statement, _is_own(statement))
    elif len(_SEEN) >= _MOST_SEEN:
        _SEEN.clear()
    _SEEN[id(statement)] = statement


def _is_own(statement: Any) -> bool:
    """Whether the statement is about choreo's tables alone: no handler makes such a one."""
    if not isinstance(statement, _PLAIN):
        return False
    about = statement.get_final_froms() if isinstance(statement, sa.Select) else [statement.table]
    return bool(about) and all(
        isinstance(one, sa.Table) and one.metadata is tables.metadata for one in about
    )


def _needed(statement: Any) -> str | None:
    """The one table whose rows it works on: none of them, and nothing comes of it."""
    if not isinstance(statement, sa.Select):
        return str(statement.table.name)
    if not all(isinstance(one, sa.Column) for one in statement.selected_columns):
        return None  # a sum over no rows is a row
    first, *others = statement.get_final_froms()
    return str(first.name) if isinstance(first, sa.Table) and not others else None


class QuickConnection(sa.Connection):
    """See the module."""

    #: Told of each statement that a handler makes; it may raise what the driver would.
    before: Callable[[], None] | None = None

    def __init__(self, engine: sa.Engine, filled: Filled) -> None:
        super().__init__(engine)
        self._filled = filled
        driver: object = self.connection.dbapi_connection
        if not isinstance(driver, sqlite3.Connection):
            raise TypeError(f"{driver!r} is no SQLite database")
        self._driver = driver

    def execute(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """See `sqlalchemy.Connection.execute`."""
        if self.before is not None and in_hand.get() is not None:
            self.before()
        if not options and (result := self._own(statement, parameters)) is not None:
            return result
        if isinstance(statement, sa.Insert) and isinstance(statement.table, sa.Table):
            self._filled.add(statement.table.name)
        elif not isinstance(statement, _HARMLESS):
            self._filled.forget()
        return super().execute(statement, parameters, **options)

    def scalar(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """See `sqlalchemy.Connection.scalar`."""
        return self.execute(statement, parameters, **options).scalar()

    def scalars(self, statement: Any, parameters: Any = None, **options: Any) -> Any:
        """See `sqlalchemy.Connection.scalars`."""
        return self.execute(statement, parameters, **options).scalars()

    def exec_driver_sql(
        self, statement: str, parameters: Any = None, execution_options: Any = None
    ) -> Any:
        """See `sqlalchemy.Connection.exec_driver_sql`."""
        if statement == "BEGIN IMMEDIATE" and not self._driver.in_transaction:
            self._driver.execute(statement)
            return Done(0)
        if self.before is not None and in_hand.get() is not None:
            self.before()
        self._filled.forget()
        return super().exec_driver_sql(statement, parameters, execution_options)

    def _own(self, statement: Any, parameters: Any) -> Any:
        """What comes of one of choreo's own statements; None: it is to go the usual way."""
        known = _KNOWN.get(id(statement))
        if known is None:
            _see(statement)
            return None
        if not known.is_own:
            return None
        try:
            return self._run(known, parameters)
        except sqlite3.Error:
            return None  # SQLAlchemy says it in its own words

    def _run(self, known: _Known, parameters: Any) -> Any:
        is_many = type(parameters) is list
        if is_many and not parameters:
            return None
        if not is_many and parameters is not None and type(parameters) is not dict:
            return None
        first = (parameters[0] if is_many else parameters) or {}
        form = known.forms.get(key := (is_many, *first), _UNKNOWN)
        if form is _UNKNOWN:
            form = known.forms[key] = self._form(known.statement, first, is_many=is_many)
        if form is None:
            return None
        if form.needs is not None and self._filled.is_empty(form.needs):
            return form.nothing()
        if form.fills is not None:
            self._filled.add(form.fills)
        return form.run_many(self._driver, parameters) if is_many else form.run(self._driver, first)

    def _form(self, statement: Any, given: Mapping[str, Any], *, is_many: bool) -> _Form | None:
        """Work it out; None for what is not plain."""
        made: Any = statement.compile(
            dialect=self.dialect, column_keys=list(given), for_executemany=is_many
        )
        if (
            made.literal_execute_params
            or made.post_compile_params
            or made.insert_prefetch
            or made.update_prefetch
            or (is_many and made.effective_returning)
        ):
            return None
        sources = []
        for name in made.positiontup:
            bind = made.binds[name]
            if bind.callable is not None or (bind.required and bind.key not in given):
                return None
            processor = made._bind_processors.get(name)  # noqa: SLF001 - no other way leads there
            sources.append(_Source(bind.key, bind.effective_value, processor))
        form = self._with_columns(made, sources)
        if form is None:
            return None
        is_plain = all(one.processor is None and one.name in given for one in sources)
        if is_plain and len(sources) > 1:
            form.pick = operator.itemgetter(*[one.name for one in sources])
        if isinstance(statement, sa.Insert):
            form.fills = statement.table.name
        else:
            form.needs = _needed(statement)
        return form

    def _with_columns(self, made: Any, sources: list[_Source]) -> _Form | None:
        columns = made._result_columns  # noqa: SLF001 - there is no other way to their types
        if not columns:
            return _Form(made.string, sources, None, [])
        names = [one.keyname for one in columns]
        if len(set(names)) < len(names):
            return None
        makers = [
            one.type._cached_result_processor(self.dialect, None)  # noqa: SLF001
            for one in columns
        ]
        metadata = SimpleResultMetaData(names, extra=[tuple(one.objects) for one in columns])
        return _Form(made.string, sources, metadata, makers if any(makers) else [])
