"""The life of a message in one service: once, in order of need, undone, retried or parked."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from stage import Stage, until
from theatre import (
    Begun,
    Booked,
    Charge,
    Charged,
    Dropped,
    Freed,
    Greeted,
    Held,
    Late,
    Opened,
    Over,
    Theatre,
    TripDied,
    TripFailed,
)

from choreo import Reject, Retry, Service
from choreo.contract import encode
from choreo.dead import DeadLettered, send_back


@pytest.fixture(name="theatre")
def theatre_fixture() -> Theatre:
    # Its deadline is over when the test says so.
    return Theatre(expires=timedelta(hours=1))


StageMaker = Callable[..., Stage]


@pytest.fixture(name="stage")
def stage_fixture(
    theatre: Theatre,
    amqp_url: str,
    database_url: str,
    create_databases: Callable[..., None],
    tmp_path: Path,
) -> StageMaker:
    create_databases("theatre")

    def make(**given: Any) -> Stage:
        return Stage(theatre.service, amqp_url, database_url, tmp_path, **given)

    return make


def whats(running: Stage, theatre: Theatre) -> list[tuple[str, str]]:
    return [(row["seat"], row["what"]) for row in running.rows(theatre.seats)]


async def test_a_message_is_handled_once_however_often_it_comes(
    stage: StageMaker, theatre: Theatre
) -> None:
    async with stage() as running:
        message = Booked(trip="t", seat="1a")
        for _ in range(100):
            await running.publish(message, id="one")
        await running.publish(Booked(trip="t", seat="1b"), id="two")
        await until(lambda: len(running.events(Held)) == 2, "both are held")
        await running.settled()
        assert whats(running, theatre) == [("1a", "held"), ("1b", "held")]
        assert [one.subject for one in running.envelopes(Held)] == ["1a", "1b"]


async def test_an_answer_carries_the_envelope_of_its_cause(stage: StageMaker) -> None:
    async with stage() as running:
        await running.publish(Booked(trip="t", seat="1a"), id="m1", flow="f1", cause="m0")
        await until(lambda: running.events(Held), "held")
        delivery, envelope = running.events(Held)[0], running.envelopes(Held)[0]
        assert (envelope.flow, envelope.causation, envelope.subject) == ("f1", "m1", "1a")
        assert (envelope.source, envelope.type) == ("/theatre/hold", "stage.held.v1")
        assert delivery.correlation_id == "f1"
        assert delivery.properties["content_type"] == "application/json"
        assert delivery.properties["delivery_mode"] == 2
        assert json.loads(delivery.body) == {"trip": "t", "seat": "1a"}


async def test_a_stranger_with_only_an_id_a_type_and_a_body_takes_part(
    stage: StageMaker, theatre: Theatre
) -> None:
    async with stage() as running:
        await running.publish_raw(
            b'{"trip": "t", "seat": "9z"}',
            exchange="stage",
            routing_key="stage.booked.v1",
            message_id="bare",
            type="stage.booked.v1",
            correlation_id="what the stranger calls it",
        )
        await until(lambda: running.events(Held), "held")
        envelope = running.envelopes(Held)[0]
        assert (envelope.flow, envelope.causation) == ("bare", "bare")


async def test_an_undo_takes_back_what_the_flow_did_once_whichever_cause_came(
    stage: StageMaker, theatre: Theatre
) -> None:
    async with stage() as running:
        await running.publish(Booked(trip="t", seat="1a"), flow="f")
        await running.publish(Booked(trip="t", seat="1b"), flow="f")
        await running.publish(Booked(trip="u", seat="2a"), flow="other")
        await until(lambda: len(running.events(Held)) == 3, "held")
        await running.publish(TripDied(trip="t"), flow="f")
        await running.publish(TripFailed(trip="t"), flow="f")
        await until(lambda: len(running.events(Freed)) == 2, "freed")
        await running.settled()
        assert whats(running, theatre)[3:] == [("1b", "freed"), ("1a", "freed")], "newest first"
        assert len(running.events(Freed)) == 2


async def test_an_undo_with_a_subject_reaches_only_equal_ones(
    stage: StageMaker, theatre: Theatre
) -> None:
    async with stage() as running:
        for seat in ("1a", "1b", "1c"):
            await running.publish(Booked(trip="t", seat=seat), flow="f")
        await until(lambda: len(running.events(Held)) == 3, "held")
        await running.publish(Dropped(seat="1b"), flow="f")
        await until(lambda: running.events(Freed), "freed")
        await running.publish(Booked(trip="t", seat="1b"), flow="f")
        await running.publish(Booked(trip="t", seat="1d"), flow="f")
        await until(lambda: len(running.events(Held)) == 4, "the other seat is held")
        await running.settled()
        assert whats(running, theatre)[3:] == [("1b", "freed"), ("1d", "held")]


async def test_an_undo_that_overtakes_its_step_keeps_it_from_running(
    stage: StageMaker, theatre: Theatre
) -> None:
    async with stage() as running:
        await running.publish(TripDied(trip="t"), flow="f")
        await running.publish(Booked(trip="t", seat="1a"), id="late", flow="f")
        await running.publish(Charge(trip="t", seat="1a"), id="late-charge", flow="f")
        await running.publish(Booked(trip="u", seat="2a"), flow="other")
        await until(lambda: running.events(Held), "the other flow goes on")
        await running.settled()
        assert whats(running, theatre) == [("2a", "held")]
        assert theatre.outside.calls == []
        status = {(row["message_id"], row["status"]) for row in running.rows("inbox")}
        assert {("late", "cancelled"), ("late-charge", "cancelled")} <= status


async def test_a_failing_handler_is_tried_again_and_costs_only_itself(
    stage: StageMaker, theatre: Theatre
) -> None:
    theatre.failures["bad"] = [RuntimeError("first"), Retry("not yet", after=0.1)]
    async with stage() as running:
        for number in range(20):
            seat = "bad" if number == 7 else f"s{number}"
            await running.publish(Booked(trip="t", seat=seat), flow="f")
        await until(lambda: len(running.events(Held)) == 20, "all are held in the end")
        await running.settled()
        assert sorted(whats(running, theatre)).count(("bad", "held")) == 1
        assert len(whats(running, theatre)) == 20
        assert running.rows("due") == []


async def test_a_hopeless_message_becomes_a_letter_that_can_be_sent_back(
    stage: StageMaker, theatre: Theatre
) -> None:
    theatre.failures["bad"] = [RuntimeError(f"number {n}") for n in range(3)]
    async with stage(attempts=3) as running:
        body = b'{"seat": "bad",   "trip": "t", "extra": 1}'
        await running.publish_raw(
            body,
            exchange="stage",
            routing_key="stage.booked.v1",
            message_id="m",
            type="stage.booked.v1",
            headers={"mine": "kept", "number": 7},
            reply_to="somewhere",
        )
        await until(lambda: running.events(DeadLettered), "a dead letter")
        [letter] = running.rows("dead")
        assert (letter["handler"], letter["attempts"], letter["message_id"]) == ("hold", 3, "m")
        assert "number 2" in letter["reason"]
        assert "RuntimeError: number 2" in letter["error"]
        assert bytes(letter["body"]) == body
        assert letter["first_failed"] < letter["last_failed"]
        kept = json.loads(letter["properties"])
        assert kept["headers"] == {"mine": "kept", "number": 7}
        assert kept["properties"]["reply_to"] == "somewhere"
        assert whats(running, theatre) == []
        running.execute(lambda db: send_back(db, letter, 0.0))
        await until(lambda: running.events(Held), "held after all")
        await running.settled()
        assert whats(running, theatre) == [("bad", "held")]
        assert running.rows("dead") == running.rows("due") == []


async def test_reject_goes_straight_to_the_dead_letters(
    stage: StageMaker, theatre: Theatre
) -> None:
    theatre.failures["bad"] = [Reject("no such seat")]
    async with stage() as running:
        await running.publish(Booked(trip="t", seat="bad"))
        await until(lambda: running.events(DeadLettered), "a dead letter")
        [letter] = running.rows("dead")
        assert (letter["reason"], letter["attempts"]) == ("rejected: no such seat", 1)


async def test_a_step_that_waits_for_a_retry_is_cancelled_by_its_undo(
    stage: StageMaker, theatre: Theatre
) -> None:
    theatre.failures["slow"] = [Retry("much later", after=60)]
    async with stage() as running:
        await running.publish(Booked(trip="t", seat="slow"), flow="f")
        await until(lambda: running.rows("due"), "a retry is due")
        await running.publish(TripDied(trip="t"), flow="f")
        await until(lambda: not running.rows("due"), "nothing is due any more")
        await running.settled()
        assert whats(running, theatre) == []
        assert {row["status"] for row in running.rows("inbox") if row["handler"] == "hold"} == {
            "cancelled"
        }


async def test_a_final_step_does_not_run_once_its_unless_was_seen(
    stage: StageMaker, theatre: Theatre
) -> None:
    async with stage() as running:
        await running.publish(TripDied(trip="t"), flow="f")
        await running.publish(Held(trip="t", seat="1a"), flow="f")
        await running.publish(Held(trip="u", seat="2a"), flow="g")
        await until(lambda: running.events(Greeted), "greeted")
        await running.settled()
        assert [one.flow for one in running.envelopes(Greeted)] == ["g"]


async def test_a_deadline_fires_once_unless_what_ends_it_was_seen_in_any_order(
    stage: StageMaker, theatre: Theatre
) -> None:
    async with stage() as running:
        await running.publish(Over(trip="c"), flow="c")
        await running.publish(Begun(trip="a"), flow="a")
        await running.publish(Begun(trip="b"), flow="b")
        await running.publish(Begun(trip="c"), flow="c")
        await until(lambda: len(running.events(Opened)) == 3, "opened")
        await running.publish(Over(trip="b"), flow="b")
        await until(lambda: [row["flow"] for row in running.rows("due")] == ["a"], "one is armed")
        running.time_is_up("expire")
        await until(lambda: running.events(Late), "one is late")
        await until(lambda: not running.rows("due"), "nothing is due")
        await running.settled()
        assert [one.flow for one in running.envelopes(Late)] == ["a"]
        assert whats(running, theatre) == [("a", "late")]


async def test_a_deadline_survives_a_restart(stage: StageMaker, theatre: Theatre) -> None:
    async with stage() as running:
        await running.publish(Begun(trip="a"), flow="a")
        await until(lambda: running.rows("due"), "armed")
        await running.stop()
        assert running.events(Late) == []
        running.time_is_up("expire")
        await running.start()
        await until(lambda: running.events(Late), "late")
        await running.settled()
        assert whats(running, theatre) == [("a", "late")]


BAD: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "no JSON": (b"{", {}, "Invalid JSON"),
    "a field is missing": (b'{"trip": "t"}', {}, "seat: Field required"),
    "another type": (b'{"trip": "t", "seat": 5}', {}, "seat: Input should be a valid string"),
    "too big": (b'{"seat": "' + b"x" * 2000 + b'"}', {}, "over the limit, 1000"),
    "an unknown type": (b"{}", {"type": "stage.unheard.v1"}, "does not know the type"),
    "a newer version": (b"{}", {"type": "stage.booked.v2"}, "in version 1, not 2"),
    "no id": (b"{}", {"message_id": None}, "no message id"),
    "no type": (b"{}", {"type": None}, "no type"),
    "an id too long": (
        b"{}",
        {"headers": {"cloudEvents:causationid": "x" * 300}},
        "at most 255 bytes",
    ),
    "a cause and no flow": (b"{}", {"headers": {"cloudEvents:causationid": "x"}}, "no flow"),
    "a time that is none": (b"{}", {"headers": {"cloudEvents:time": "soon"}}, "RFC 3339"),
    "headers of any kind": (b"{}", {"headers": {"cloudEvents:source": [1, {"a": True}]}}, "text"),
}


async def test_bad_input_becomes_a_letter_and_the_messages_behind_it_go_on(
    stage: StageMaker, theatre: Theatre
) -> None:
    async with stage(max_body_bytes=1000) as running:
        for number, (body, properties, _) in enumerate(BAD.values()):
            await running.publish_raw(
                body,
                exchange="",
                routing_key="theatre",
                **{"message_id": f"bad-{number}", "type": "stage.booked.v1", **properties},
            )
            await running.publish(Booked(trip="t", seat=f"good-{number}"))
        await until(lambda: len(running.events(Held)) == len(BAD), "the good ones are held")
        await until(lambda: len(running.events(DeadLettered)) == len(BAD), "the bad are letters")
        await running.settled()
        letters = {
            bytes(row["body"]) + row["properties"].encode(): row for row in running.rows("dead")
        }
        assert len(letters) == len(BAD)
        for name, (body, _, reason) in BAD.items():
            found = [row for row in letters.values() if reason in row["reason"]]
            assert found, f"{name}: no letter says {reason!r}"
            assert body in [bytes(row["body"]) for row in found], name


async def test_a_known_id_with_another_body_is_a_letter(
    stage: StageMaker, theatre: Theatre
) -> None:
    async with stage() as running:
        await running.publish(Booked(trip="t", seat="1a"), id="m")
        await running.publish(Booked(trip="t", seat="1b"), id="m")
        await until(lambda: running.events(DeadLettered), "a dead letter")
        await running.settled()
        [letter] = running.rows("dead")
        assert "with another body" in letter["reason"]
        assert bytes(letter["body"]) == encode(Booked(trip="t", seat="1b"))
        assert whats(running, theatre) == [("1a", "held")]


async def test_a_letter_of_bad_input_that_is_sent_back_is_judged_anew(
    stage: StageMaker, theatre: Theatre
) -> None:
    async with stage(max_body_bytes=20) as running:
        await running.publish(Booked(trip="t", seat="a long seat"))
        await until(lambda: running.rows("dead"), "too long")
        running.settings = running.settings.model_copy(update={"max_body_bytes": 1000})
        await running.stop()
        await running.start()
        [letter] = running.rows("dead")
        running.execute(lambda db: send_back(db, letter, 0.0))
        await until(lambda: running.events(Held), "held")
        await running.settled()
        assert running.rows("dead") == running.rows("due") == []


async def test_what_waits_survives_a_restart(stage: StageMaker, theatre: Theatre) -> None:
    theatre.failures["slow"] = [Retry("later", after=3600)]
    theatre.outside.gate.clear()
    async with stage(grace_s=0.1) as running:
        await running.publish(Booked(trip="t", seat="slow"), flow="f")
        await running.publish(Charge(trip="t", seat="1a"), id="c", flow="f")
        await until(lambda: len(running.rows("due")) == 2, "a retry and a call are due")
        await running.stop()
        theatre.outside.gate.set()
        await running.start()
        running.time_is_up("hold")
        await until(lambda: running.events(Held) and running.events(Charged), "both came to an end")
        await running.settled()
        assert {key for _, key in theatre.outside.calls} == {"c"}
        assert whats(running, theatre) == [("slow", "held")]
        assert running.rows("due") == []


async def test_a_handler_that_returns_what_it_did_not_announce_is_parked(
    amqp_url: str, tmp_path: Path
) -> None:
    service = Service("liar")

    @service.on
    def lie(booked: Booked) -> Held:
        return Freed(trip=booked.trip, seat=booked.seat)  # type: ignore[return-value]

    database = f"sqlite:///{tmp_path}/liar.db"
    async with Stage(service, amqp_url, database, tmp_path, attempts=1) as running:
        await running.publish(Booked(trip="t", seat="1a"))
        await until(lambda: running.rows("dead"), "parked")
        assert "returned Freed; declared Held" in running.rows("dead")[0]["reason"]
