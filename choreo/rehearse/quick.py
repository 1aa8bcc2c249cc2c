"""A connection that runs the statements it knows at the driver's speed.

SQLAlchemy makes the SQL, once for each statement and form of its parameters; then it is given to
sqlite3 as it is. That halves the time of a schedule. Whatever is not plain goes the usual way, as
do the inserts of the services: what comes of them has more to it than is known here.

What a table says is known without asking as long as nothing was inserted: it is empty. And a
transaction that only reads need not begin, as all run one after the other.
"""

from __future__ import annotations

import operator
import sqlite3
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.sql.elements import _IdentifiedClause

from choreo.log import in_hand
from choreo.rehearse.results import Done, Rows

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
    #: Its place in a list, where the parameter is one.
    place: int | None
    #: What it is where it is not given.
    constant: Any
    processor: Processor | None

    def __call__(self, given: Mapping[str, Any]) -> Any:
        value = given.get(self.name, self.constant)
        if self.place is not None:
            value = value[self.place]
        return value if self.processor is None else self.processor(value)


@dataclass(slots=True)
class _Form:
    """A statement with parameters of one form, ready to be run."""

    sql: str
    sources: list[_Source]
    metadata: SimpleResultMetaData | None
    #: Of each column, what its type makes of the value; empty if none does anything.
    processors: list[Processor | None]
    #: The columns of the primary key, where a row is inserted.
    key: list[str] = field(default_factory=list)
    #: Takes the parameters, where all are taken as they are given.
    pick: Callable[[Mapping[str, Any]], Sequence[Any]] | None = None
    #: The table without whose rows it does nothing.
    needs: str | None = None
    #: The table that it inserts into.
    fills: str | None = None
    is_reading: bool = False
    #: Whether the statement is choreo's, which asks little of the rows.
    is_own: bool = False

    def values(self, given: Mapping[str, Any]) -> Sequence[Any]:
        """The positional parameters."""
        if self.pick is not None:
            return self.pick(given)
        return [source(given) for source in self.sources]

    def nothing(self) -> Any:
        """What comes of it where there are no rows."""
        return Done(0) if self.metadata is None else Rows(self.metadata, (), is_own=self.is_own)

    def run(self, driver: sqlite3.Connection, given: Mapping[str, Any]) -> Any:
        cursor = driver.execute(self.sql, self.values(given))
        if self.metadata is None:
            return Done(cursor.rowcount, [given.get(one, cursor.lastrowid) for one in self.key])
        rows: Sequence[tuple[Any, ...]] = cursor.fetchall()
        if self.processors:
            rows = [
                tuple(
                    value if make is None else make(value)
                    for make, value in zip(self.processors, row, strict=True)
                )
                for row in rows
            ]
        return Rows(self.metadata, rows, is_own=self.is_own)

    def run_many(self, driver: sqlite3.Connection, given: Sequence[Mapping[str, Any]]) -> Any:
        return Done(driver.executemany(self.sql, map(self.values, given)).rowcount)


@dataclass(slots=True)
class _Known:
    """A statement that is run again and again, with what was worked out for it."""

    #: Kept, so that no other takes its id.
    statement: Any
    #: Whether it is choreo's, which asks little of what comes of it.
    is_own: bool
    forms: dict[Any, _Form | None] = field(default_factory=dict)
    #: The names of its parameters that are lists.
    lists: tuple[str, ...] = ()


def _key(known: _Known, given: Mapping[str, Any], *, is_many: bool) -> tuple[Any, ...]:
    """What form the parameters have: which are given, and how long the lists are."""
    lists = [given[name] for name in known.lists if name in given]
    return (is_many, *given, *[(type(one), len(one)) for one in lists])


_UNKNOWN: Any = object()
_PLAIN = (sa.Select, sa.CompoundSelect, sa.Insert, sa.Update, sa.Delete)
#: What puts no row anywhere.
_HARMLESS = (sa.Select, sa.CompoundSelect, sa.Update, sa.Delete, _IdentifiedClause)


#: By the statement's id; all databases share it, as their dialect is the same.
_KNOWN: dict[int, _Known] = {}
_SEEN: dict[int, Any] = {}


def _see(statement: Any) -> None:
    if _SEEN.get(id(statement)) is statement:
        tables = (
            statement.get_final_froms()
            if isinstance(statement, sa.Select)
            else [getattr(statement, "table", None)]
        )
        is_own = bool(tables) and all(
            isinstance(one, sa.Table) and one.name.startswith("choreo_") for one in tables
        )
        _KNOWN[id(statement)] = _Known(statement, is_own)
    elif len(_SEEN) >= _MOST_SEEN:
        _SEEN.clear()
    _SEEN[id(statement)] = statement


def _needed(statement: Any) -> str | None:
    """The one table whose rows it works on: none of them, and nothing comes of it."""
    if isinstance(statement, sa.Update | sa.Delete):
        return statement.table.name if isinstance(statement.table, sa.Table) else None
    if not isinstance(statement, sa.Select):
        return None
    if not all(isinstance(one, sa.Column) for one in statement.selected_columns):
        return None  # a sum over no rows is a row
    first, *others = statement.get_final_froms()
    return first.name if isinstance(first, sa.Table) and not others else None


class QuickConnection(sa.Connection):
    """See the module."""

    #: Told of each statement that a handler makes; it may raise what the driver would.
    before: Callable[[], None] | None = None
    #: Whether the transaction has begun; None: there is none.
    _has_begun: bool | None = None

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
        known = _KNOWN.get(id(statement))
        if known is None:
            _see(statement)
        elif not options:
            try:
                result = self._run(known, parameters)
            except sqlite3.Error:
                result = None  # SQLAlchemy says it in its own words
            if result is not None:
                return result
        self._begin_now()
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
        if statement == "BEGIN IMMEDIATE":
            self._has_begun = False
            return Done(0)
        if self.before is not None and in_hand.get() is not None:
            self.before()
        self._begin_now()
        self._filled.forget()
        return super().exec_driver_sql(statement, parameters, execution_options)

    @property
    def connection(self) -> Any:
        """See `sqlalchemy.Connection.connection`."""
        self._begin_now()
        return super().connection

    def _begin_now(self) -> None:
        if self._has_begun is False:
            self._driver.execute("BEGIN IMMEDIATE")
            self._has_begun = True

    @contextmanager
    def begin(self) -> Generator[None]:  # type: ignore[override]
        """See `sqlalchemy.Connection.begin`; it begins with what does not only read."""
        try:
            yield
        except BaseException:
            self._driver.rollback()
            raise
        else:
            self._driver.commit()
        finally:
            self._has_begun = None
            if self._transaction is not None:  # what went the usual way has begun one
                self._transaction.close()

    def _run(self, known: _Known, parameters: Any) -> Any:
        is_many = type(parameters) is list
        if is_many and not (known.is_own and parameters):
            return None
        if not is_many and parameters is not None and type(parameters) is not dict:
            return None
        first = (parameters[0] if is_many else parameters) or {}
        form = known.forms.get(key := _key(known, first, is_many=is_many), _UNKNOWN)
        if form is _UNKNOWN:
            form = self._form(known, first, is_many=is_many)
            key = _key(known, first, is_many=is_many)  # now it is known which are lists
            known.forms[key] = form
        if form is None:
            return None
        if form.needs is not None and self._filled.is_empty(form.needs):
            return form.nothing()
        if form.fills is not None:
            self._filled.add(form.fills)
        if not form.is_reading:
            self._begin_now()
        return form.run_many(self._driver, parameters) if is_many else form.run(self._driver, first)

    def _form(self, known: _Known, given: Mapping[str, Any], *, is_many: bool) -> _Form | None:
        """Work it out; None for what is not plain."""
        statement = known.statement
        if not isinstance(statement, _PLAIN) or (
            isinstance(statement, sa.Insert) and not known.is_own
        ):
            return None
        made: Any = statement.compile(
            dialect=self.dialect, column_keys=list(given), for_executemany=is_many
        )
        known.lists = tuple(
            bind.key for bind in made.bind_names if bind.expanding and bind.key in given
        )
        if (
            made.literal_execute_params
            or made.insert_prefetch
            or made.update_prefetch
            or len(known.lists) != len(made.post_compile_params)
            or not all(type(given[name]) in {list, tuple} for name in known.lists)
            or (is_many and (made.effective_returning or known.lists))
        ):
            return None
        sql, names, expanded = made.string, made.positiontup, {}
        processors = made._bind_processors  # noqa: SLF001 - no other way leads there
        if known.lists:
            state = made.construct_expanded_state(dict(given))
            sql, names = state.statement, state.positiontup
            processors = {**processors, **state.processors}
            expanded = {
                one: (name, place)
                for name, ones in state.parameter_expansion.items()
                for place, one in enumerate(ones)
            }
        sources = []
        for one in names:
            name, place = expanded.get(one, (one, None))
            bind = made.binds[name]
            if bind.callable is not None or bind.type._is_tuple_type:  # noqa: SLF001 - as above
                return None
            if bind.required and bind.key not in given:
                return None
            sources.append(_Source(bind.key, place, bind.effective_value, processors.get(one)))
        form = self._with_columns(made, sql, sources, is_own=known.is_own)
        is_plain = all(
            one.place is None and one.processor is None and one.name in given for one in sources
        )
        if form is None:
            return None
        if is_plain and len(sources) > 1:
            form.pick = operator.itemgetter(*[one.name for one in sources])
        form.is_reading = isinstance(statement, sa.Select | sa.CompoundSelect)
        if isinstance(statement, sa.Insert):
            form.fills = statement.table.name
        else:
            form.needs = _needed(statement)
        return form

    def _with_columns(
        self, made: Any, sql: str, sources: list[_Source], *, is_own: bool
    ) -> _Form | None:
        columns = made._result_columns  # noqa: SLF001 - there is no other way to their types
        if not columns:
            is_insert = isinstance(made.statement, sa.Insert)
            key = [one.key for one in made.statement.table.primary_key] if is_insert else []
            return _Form(sql, sources, None, [], key)
        names = [one.keyname for one in columns]
        if len(set(names)) < len(names):
            return None
        makers = [
            one.type._cached_result_processor(self.dialect, None)  # noqa: SLF001
            for one in columns
        ]
        metadata = SimpleResultMetaData(names, extra=[tuple(one.objects) for one in columns])
        form = _Form(sql, sources, metadata, makers if any(makers) else [])
        form.is_own = is_own
        return form
