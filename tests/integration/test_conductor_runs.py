"""A conductor on a real broker and database: every way its run can go, late and doubled answers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from stage import until
from works import (
    Build,
    Built,
    Dig,
    Dropped,
    Dug,
    Fill,
    Filled,
    NotPainted,
    Paint,
    Painted,
    Rock,
    Topped,
    Unwire,
    Wire,
    Wired,
    Works,
    builder,
)

from choreo import intake
from choreo.dead import send_back

Maker = Callable[..., Any]


@pytest.fixture(name="works")
def works_fixture(
    amqp_url: str, database_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> Maker:
    create_databases("builder")

    @asynccontextmanager
    async def make(**settings: Any) -> AsyncIterator[Works]:
        works = Works(builder(), amqp_url, database_url, tmp_path, **settings)
        async with works.hands(), works:
            yield works

    return make


HOLES = (Dig(hole="j.0"), Dig(hole="j.1"))


async def test_all_is_done(works: Maker) -> None:
    async with works() as running:
        flow = await running.publish(Build(job="j"))
        await running.sent(*HOLES)
        await running.answer(flow, Dug(hole="j.1", depth=7))
        await running.answer(flow, Dug(hole="j.0", depth=5))
        # In the order in which they were asked for, not of the answers.
        await running.sent(Wire(job="j", depths=(5, 7)), Paint(job="j"))
        await running.answer(flow, Painted(job="j", colour="red"), Wired(job="j"))
        await running.ended(Built(job="j", colour="red", wired=True))
        assert len(running.events(Topped)) == 1
        assert running.status()[0] == "done"
        assert set(running.status()[1].values()) == {"done"}
        assert running.rows("due") == []


async def test_a_step_may_be_left_out(works: Maker) -> None:
    async with works() as running:
        flow = await running.publish(Build(job="j", holes=0, wired=False))
        await running.sent(Paint(job="j"))
        await running.answer(flow, Painted(job="j"))
        await running.ended(Built(job="j", colour="blue", wired=False))


async def test_answers_come_twice_and_of_strangers(works: Maker) -> None:
    async with works() as running:
        flow = await running.publish(Build(job="j"))
        await running.sent(*HOLES)
        await running.answer(flow, *[Dug(hole="j.0")] * 3, Rock(hole="j.0"), Dug(hole="other"))
        await running.answer("another-flow", Dug(hole="j.1"), Painted(job="j"))
        await running.answer(flow, Painted(job="j"), Filled(hole="j.0"))
        half = ("running", {"dig j.0": "done", "dig j.1": "asked"})
        await until(lambda: running.status() == half, "one hole is dug")
        await running.settled()
        assert running.commands == []
        assert running.status() == half
        await running.answer(flow, Dug(hole="j.1"), Dug(hole="j.1"))
        await running.sent(Wire(job="j", depths=(1, 1)), Paint(job="j"))


async def test_undone_newest_first_when_one_fails(works: Maker) -> None:
    async with works() as running:
        flow = await running.publish(Build(job="j"))
        await running.sent(*HOLES)
        await running.answer(flow, Dug(hole="j.1"))
        await running.settled()
        await running.answer(flow, Dug(hole="j.0"))
        await running.sent(Wire(job="j", depths=(1, 1)), Paint(job="j"))
        await running.answer(flow, NotPainted(job="j"))
        await running.settled()
        # What is under way beside it is waited for: then it is known what to undo.
        assert running.commands == []
        await running.answer(flow, Wired(job="j"))
        why = "paint: NotPainted"
        await running.sent(Unwire(job="j"), Fill(hole="j.0", why=why))
        await running.answer(flow, Filled(hole="j.0"), Filled(hole="j.0"))
        await running.sent(Fill(hole="j.1", why=why))
        await running.answer(flow, Filled(hole="j.0"))
        await running.settled()
        assert running.ends() == []
        await running.answer(flow, Filled(hole="j.1"), Filled(hole="j.1"))
        await running.ended(Dropped(job="j", reason=why))
        assert running.status()[0] == "failed"


async def test_nothing_to_undo_when_the_first_fails(works: Maker) -> None:
    async with works() as running:
        flow = await running.publish(Build(job="j", holes=1))
        await running.sent(Dig(hole="j.0"))
        await running.answer(flow, Rock(hole="j.0"), Dug(hole="j.0"))
        await running.ended(Dropped(job="j", reason="there is rock"))
        assert running.commands == []


async def test_no_answer_in_time_is_undone_without_waiting(works: Maker) -> None:
    async with works() as running:
        flow = await running.publish(Build(job="j"))
        await running.sent(*HOLES)
        await running.answer(flow, Dug(hole="j.0"))
        await until(
            lambda: [row["subject"] for row in running.rows("due")] == ["j.1"],
            "only the other is waited for",
        )
        running.time_is_up("dig_late")
        why = "dig: no answer in time"
        await until(lambda: len(running.commands) == 2, "both are taken back")
        # The one in doubt first, then what is known to be done.
        await running.sent(Fill(hole="j.1", why=why), Fill(hole="j.0", why=why))
        await running.answer(flow, Dug(hole="j.1"), Filled(hole="j.1"))
        await running.settled()
        assert running.ends() == []
        await running.answer(flow, Filled(hole="j.0"))
        await running.ended(Dropped(job="j", reason=why))
        assert running.rows("due") == []


async def test_an_answer_before_the_question_does_not_end_the_deadline(works: Maker) -> None:
    async with works() as running:
        flow = await running.publish(Build(job="j", holes=1, wired=False))
        await running.sent(Dig(hole="j.0"))
        await running.answer(flow, Painted(job="j"))
        await running.settled()
        await running.answer(flow, Dug(hole="j.0"))
        await until(
            lambda: [row["handler"] for row in running.rows("due")] == ["paint_late"],
            "only the paint is waited for",
        )
        running.time_is_up("paint_late")
        await until(lambda: len(running.commands) == 2, "the undo of the hole")
        await running.sent(Paint(job="j"), Fill(hole="j.0", why="paint: no answer in time"))


async def test_an_answer_that_is_a_dead_letter_does_not_stop_the_run(works: Maker) -> None:
    async with works(attempts=1) as running:
        running.execute(lambda db: db.execute(sa.text("INSERT INTO houses VALUES ('j')")))
        flow = await running.publish(Build(job="j", holes=1, wired=False))
        await running.sent(Dig(hole="j.0"))
        await running.answer(flow, Dug(hole="j.0"))
        await until(lambda: running.commands == [Paint(job="j")], "the paint is asked for")
        await running.answer(flow, Painted(job="j"))
        await until(lambda: running.rows("dead"), "a dead letter")
        [letter] = running.rows("dead")
        assert letter["handler"] == "paint_done"
        assert "IntegrityError" in letter["reason"] or "UniqueViolation" in letter["reason"]
        running.time_is_up("paint_late")
        why = "paint: no answer in time"
        await until(lambda: len(running.commands) == 2, "the undo of the hole")
        await running.sent(Paint(job="j"), Fill(hole="j.0", why=why))
        await running.answer(flow, Filled(hole="j.0"))
        await running.ended(Dropped(job="j", reason=why))
        # Sent back it is late, as any answer is by now.
        running.execute(lambda db: send_back(db, letter, time.time()))
        await until(lambda: not running.rows("due"), "the letter is taken")
        await running.ended(Dropped(job="j", reason=why))
        assert running.commands == running.rows("dead") == []


async def test_a_second_start_in_the_flow_is_a_letter(works: Maker) -> None:
    async with works() as running:
        flow = await running.publish(Build(job="j"))
        await running.sent(*HOLES)
        await running.publish(Build(job="j"), flow=flow)
        await until(lambda: running.rows("dead"), "a dead letter")
        [letter] = running.rows("dead")
        assert "conducts house for j already" in letter["reason"]
        await running.publish(Build(job="k", holes=1), flow=flow)
        await running.sent(Dig(hole="k.0"))


async def test_it_goes_on_after_a_restart(works: Maker) -> None:
    async with works() as running:
        flow = await running.publish(Build(job="j", wired=False))
        await running.sent(*HOLES)
        await running.stop()
        await running.answer(flow, Dug(hole="j.0"), Dug(hole="j.1"))
        await running.start()
        await running.sent(Paint(job="j"))
        await running.stop()
        # The deadline passes while it is down: it holds all the same, and the answer is late.
        running.time_is_up("paint_late")
        await running.start()
        await until(lambda: len(running.commands) == 1, "the undo of a hole")
        why = "paint: no answer in time"
        await running.sent(Fill(hole="j.1", why=why))
        await running.answer(flow, Painted(job="j"), Filled(hole="j.1"))
        await running.sent(Fill(hole="j.0", why=why))
        await running.answer(flow, Filled(hole="j.0"))
        await running.ended(Dropped(job="j", reason=why))


async def test_answers_that_wait_while_it_is_down_are_not_late(
    works: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long it takes until the first of them comes, it has not heard all of them.
    monkeypatch.setattr(intake, "SILENCE_S", 3600.0)
    async with works() as running:
        flow = await running.publish(Build(job="j", wired=False))
        await running.sent(*HOLES)
        await running.stop()
        await running.answer(flow, *[Dug(hole="another")] * 700, Dug(hole="j.0"), Dug(hole="j.1"))
        running.time_is_up("dig_late")
        await running.start()
        await until(lambda: running.commands, "it goes on")
        assert running.commands[0] == Paint(job="j")
