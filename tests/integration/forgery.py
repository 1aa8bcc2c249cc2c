"""Faults forged into a healthy system, each with what `choreo audit` is to say of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from stage import Stage
from system import System, SystemMaker, system_fixture  # noqa: F401 - a fixture
from theatre import (
    Freed,
    Held,
    Late,
)

from choreo import Event
from choreo.contract import encode
from choreo.envelope import read
from choreo.store.tables import due, inbox, outbox, tombstones

Forge = Callable[[Stage], Awaitable[None]]


def _changed(*statements: sa.Update | sa.Delete | sa.Insert) -> Forge:
    async def forge(stage: Stage) -> None:
        def change(db: sa.Connection) -> None:
            assert all(db.execute(one).rowcount for one in statements)

        stage.execute(change)

    return forge


async def _announced(stage: Stage, event: Event, **headers: str) -> None:
    """Publish an event that says of itself what is wanted."""
    wire_type = type(event).__address__.wire_type
    await stage.publish_raw(
        encode(event), exchange="stage", routing_key=wire_type, type=wire_type,
        message_id=headers["id"], correlation_id="flow-1",
        headers={f"cloudEvents:{name}": value for name, value in headers.items()},
    )  # fmt: skip


async def _double(stage: Stage) -> None:
    one = stage.envelopes(Held)[0]
    copied = {name.removeprefix("cloudEvents:"): value
              for name, value in replace(one, id="copy").headers().items()}  # fmt: skip
    await _announced(stage, Held(trip="t", seat=str(one.subject)), **copied)


async def _phantom(stage: Stage) -> None:
    await _announced(
        stage, Freed(trip="t", seat="9"), id="ghost", source="/theatre/free", causationid="book-2"
    )


async def _of_another_flow(stage: Stage) -> None:
    await _announced(
        stage, Freed(trip="t", seat="9"), id="stray", source="/theatre/free",
        causationid=read(stage.events(Late)[0], 0.0).id,
    )  # fmt: skip


async def _without_cause(stage: Stage) -> None:
    event = Freed(trip="t", seat="9")
    await stage.publish_raw(
        encode(event), exchange="stage", routing_key="stage.freed.v1", type="stage.freed.v1",
        message_id="first", headers={"cloudEvents:source": "/theatre/free"},
    )  # fmt: skip


async def _cycle(stage: Stage) -> None:
    for one, other in (("egg", "hen"), ("hen", "egg")):
        await _announced(stage, Freed(trip="t", seat="9"), id=one, causationid=other, source="x")


async def _clash(stage: Stage) -> None:
    await _announced(stage, Freed(trip="t", seat="9"), id="flow-1", source="x")


async def _unsent(stage: Stage) -> None:
    envelope = '{"id":"o","type":"stage.freed.v1","source":"/theatre/free","flow":"flow-1",'
    envelope += '"causation":"died","time":"2030-01-01T00:00:00Z"}'
    row = {"id": "o", "exchange": "nowhere", "routing_key": "x", "envelope": envelope,
           "body": b"{}", "mandatory": False, "owner": "me", "lease_until": 9e12}  # fmt: skip
    stage.execute(lambda db: db.execute(outbox.insert(), row))


async def _due_again(stage: Stage) -> None:
    row = {"kind": "retry", "handler": "hold", "message_id": "book-2", "flow": "flow-1", "at": 9e12,
           "attempts": 1, "crashes": 0, "properties": "{}", "body": b"{}"}  # fmt: skip
    stage.execute(lambda db: db.execute(due.insert(), row))


def _of(message_id: str, handler: str) -> Any:
    return sa.and_(inbox.c.message_id == message_id, inbox.c.handler == handler)


#: What is forged, and what is to be found of it: kind and handler.
FAULTS: dict[str, tuple[Forge, set[tuple[str, str | None]]]] = {
    "a message that nobody handled": (
        _changed(inbox.delete().where(_of("died", "greet.unless"))),
        {("missing", "theatre.greet.unless")},
    ),
    "a step that is forgotten": (
        _changed(inbox.delete().where(_of("book-2", "hold"))),
        {("missing", "theatre.hold"), ("phantom", "theatre.hold"), ("doubled", "theatre.free")},
    ),
    "an outcome that was not undone": (
        _changed(inbox.update().where(_of("book-2", "hold")).values(undo=None)),
        {("not undone", "theatre.hold"), ("doubled", "theatre.free")},
    ),
    "an undo that is owed for ever": (
        _changed(inbox.update().where(_of("book-2", "hold")).values(undo="owed")),
        {("owed", "theatre.free"), ("doubled", "theatre.free")},
    ),
    "a step that may come after all": (
        _changed(tombstones.delete().where(tombstones.c.handler == "charge")),
        {("not stopped", "theatre.charge")},
    ),
    "a final step that ran too late": (
        _changed(inbox.update().where(inbox.c.handler == "greet").values(at=9e12)),
        {("not stopped", "theatre.greet")},
    ),
    "an announcement that never arrived": (
        _changed(
            inbox.update()
            .where(_of("book-2", "hold"))
            .values(outcome='[["stage.held.v1",{}],["stage.held.v1",{}]]')
        ),
        {("lost", "theatre.hold"), ("lost", "theatre.free")},
    ),
    "an announcement of what was not done": (
        _changed(inbox.update().where(_of("book-2", "hold")).values(status="cancelled")),
        {("phantom", "theatre.hold")},
    ),
    "a step that nothing goes on with": (
        _changed(inbox.update().where(_of("died", "greet.unless")).values(status="waiting")),
        {("stuck", "theatre.greet.unless")},
    ),
    "a doubled event": (_double, {("doubled", "theatre.hold"), ("missing", "theatre.greet")}),
    "a phantom": (_phantom, {("phantom", "theatre.free"), ("doubled", "theatre.free")}),
    "an event of another flow": (
        _of_another_flow,
        {("phantom", "theatre.free"), ("doubled", "theatre.free")},
    ),
    "an event without a cause": (_without_cause, {("phantom", "theatre.free")}),
    "a cycle": (_cycle, {("cycle", "x")}),
    "two messages with one id": (_clash, {("clash", None)}),
    "an event that is not published": (
        _unsent,
        {("unsent", "theatre.free"), ("doubled", "theatre.free")},
    ),
    "a message that would run again": (_due_again, {("twice", "theatre.hold")}),
}  # fmt: skip
