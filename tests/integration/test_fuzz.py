"""Whatever a stranger sends is handled or a dead letter, and what comes behind it is handled."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import stranger
from hypothesis import HealthCheck, Phase, given, settings
from stage import Stage, until
from strange import (
    BATCH,
    BATCHES,
    DIGEST,
    GOOD,
    LONGEST_BODY,
    OWN,
    TROUBLE,
    Measured,
    Recorded,
    ReserveSeat,
    batches,
)
from stranger import Raw, Stranger, short
from theatre import Booked, Held, Theatre

from choreo import Connection
from choreo.dead import DeadLettered
from choreo.store.tables import dead, inbox
from choreo.work import digest_of

# What became of them.


class Trial:
    """Sends batch after batch to one running service, and accounts for every message."""

    def __init__(self, running: Stage, client: Stranger) -> None:
        self._running = running
        self._client = client
        self.sent = 0
        self.handled = 0
        self.refused = 0
        #: The ids of the healthy messages, one behind each batch.
        self.healthy: set[str] = set()

    async def run(self, batch: Sequence[Raw]) -> None:
        """Send a batch and a healthy message behind it; wait until all is accounted for."""
        marked = {}
        for one in batch:
            self.sent += 1
            mark = f"mark {self.sent}"
            marked[mark] = _marked(one, mark, len(self.healthy))
        await self._client.publish(list(marked.values()))
        behind = await self._running.publish(GOOD)
        self.healthy.add(behind)

        def lost() -> list[str]:
            inboxed, letters = self._found(marked.values(), behind)
            found = [f"{mark}: {one}" for mark, one in marked.items()
                     if mark not in letters and inboxed.isdisjoint(_names(one))]  # fmt: skip
            return found if (behind, DIGEST) in inboxed else [*found, "the healthy one behind"]

        try:
            await until(lambda: not lost(), "all is accounted for")
        except AssertionError as error:
            raise AssertionError(f"{error}; lost: {lost()}") from None
        self._count(marked, behind)

    def _count(self, marked: Mapping[str, Raw], behind: str) -> None:
        inboxed, letters = self._found(marked.values(), behind)
        refused = marked.keys() & letters.keys()
        self.refused += len(refused)
        self.handled += len(marked.keys() - refused)
        # A message with the id of another may be new to one handler and refused by the next.
        both = [one for mark in refused if _has_own_id(one := marked[mark])
                and (letters[mark] > 1 or not inboxed.isdisjoint(_names(one)))]  # fmt: skip
        assert not both, f"handled and refused, or refused twice: {both}"

    def _found(
        self, sent: Iterable[Raw], behind: str
    ) -> tuple[set[tuple[str, bytes]], Counter[str]]:
        """What the inbox knows of these, and how many letters there are of each mark."""
        names = {name for one in sent for name, _ in _names(one)} | {behind}
        known = sa.select(inbox.c.message_id, inbox.c.digest).where(inbox.c.message_id.in_(names))
        refused = sa.select(dead.c.properties).where(dead.c.handler == "")

        def read(db: Connection) -> tuple[set[tuple[str, bytes]], Counter[str]]:
            inboxed = {(name, bytes(digest)) for name, digest in db.execute(known)}
            letters = (json.loads(one)["properties"] for one in db.scalars(refused))
            return inboxed, Counter(str(one.get("reply_to")) for one in letters)

        found: tuple[set[tuple[str, bytes]], Counter[str]] = self._running.execute(read)
        return found


def _marked(message: Raw, mark: str, batch: int) -> Raw:
    """The message with the number of its batch, and a mark by which its letter is recognised."""
    number = b"batch %04d" % batch
    properties = {k: v.replace(BATCH, number) for k, v in message.properties.items()}
    return replace(
        message,
        properties={**properties, "reply_to": short(mark.encode())},
        headers=[(name, value.replace(BATCH, number)) for name, value in message.headers],
    )


def _has_own_id(message: Raw) -> bool:
    return OWN in message.properties.get("message_id", b"")


def _names(message: Raw) -> set[tuple[str, bytes]]:
    """What the inbox may know it by: an id, and the digest of its type and body."""
    return {
        (name.decode(), digest_of(kind + message.body))
        for name in _said(message, "message_id", b"id")
        for kind in _said(message, "message_type", b"type")
    }


def _said(message: Raw, native: str, header: bytes) -> list[bytes]:
    """The texts that a native property and the headers of the same meaning hold."""
    found = [message.properties[native][1:]] if native in message.properties else []
    found += [
        value[5:]
        for name, value in message.headers
        if name in (b"cloudEvents:" + header, b"cloudEvents_" + header) and value[:1] == b"S"
    ]
    return [one for one in found if b"\0" not in one and _is_text(one)]


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.fixture
def theatre() -> Theatre:
    """The theatre, with a command and an event of every type of field."""
    theatre = Theatre()

    @theatre.service.on(final="only asks")
    def ask(wanted: ReserveSeat) -> Booked:
        return Booked(trip="t", seat=wanted.seat)

    @theatre.service.on(final="only writes down")
    def record(measured: Measured) -> Recorded:
        return Recorded(**measured.model_dump())

    return theatre


@pytest.mark.long_on_postgres
async def test_it_is_handled_or_a_letter(
    theatre: Theatre,
    amqp_url: str,
    database_url: str,
    create_databases: Callable[..., None],
    tmp_path: Path,
) -> None:
    create_databases("theatre")
    loop = asyncio.get_running_loop()
    async with (
        Stage(theatre.service, amqp_url, database_url, tmp_path, attempts=2,
              max_body_bytes=LONGEST_BODY) as running,
        stranger.connected(amqp_url) as client,
    ):  # fmt: skip
        trial = Trial(running, client)

        # The same batches each time, and none made smaller: the service remembers the larger.
        @settings(max_examples=BATCHES, derandomize=True, database=None, deadline=None,
                  phases=[Phase.generate], suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(batches())
        def fuzz(batch: list[Raw]) -> None:
            asyncio.run_coroutine_threadsafe(trial.run(batch), loop).result()

        await asyncio.to_thread(fuzz)
        await at_rest(running)
        assert trial.handled + trial.refused == trial.sent
        assert min(trial.handled, trial.refused) > trial.sent / 5, "the batches are one-sided"
        await until(
            lambda: trial.healthy <= {one.causation for one in running.envelopes(Held)},
            "the journal tells of every healthy message",
        )
        seats = [(row["seat"], row["what"]) for row in running.rows(theatre.seats)]
        assert seats.count(("good", "held")) == len(trial.healthy)
        letters = {row["id"] for row in running.rows("dead")}
        await until(
            lambda: (
                sorted(json.loads(one.body)["letter_id"] for one in running.events(DeadLettered))
                == sorted(letters)
            ),
            "each letter is announced, once",
        )
        assert not {line["event"] for line in running.logs} & TROUBLE


async def at_rest(running: Stage) -> None:
    """Wait until the service is done with all that it took; what no letter explains is no rest."""

    def open_still() -> list[Any]:
        found = [row for row in running.rows("inbox")
                 if row["status"] not in ("done", "cancelled", "parked")]  # fmt: skip
        # An undo that is owed to a letter waits for a person.
        return found + [row for row in running.rows("due") if row["at"] is not None]

    await running.settled()
    await until(lambda: not open_still(), "nothing is left to be done")
    await running.settled()
