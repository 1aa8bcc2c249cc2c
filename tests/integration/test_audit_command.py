"""`choreo audit` finds a healthy system clean, and names every fault that is forged into it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cast import ALL
from cast import services as services_of
from cli_project import Project
from forgery import FAULTS
from stage import Stage, until
from starts import mixed_flows
from system import System, SystemMaker, system_fixture  # noqa: F401 - a fixture
from theatre import (
    Begun,
    Booked,
    Charge,
    Charged,
    Freed,
    Greeted,
    Held,
    Late,
    Refunded,
    Theatre,
    TripDied,
)

from choreo import audit
from choreo.audit import Severity, Verdict
from choreo.discovery import flows
from choreo.settings import Settings, load
from choreo.store.database import connect
from choreo.store.tables import inbox
from contracts.orders import OrderFulfilled
from services.inventory.stock import holds
from services.orders.book import orders

pytestmark = pytest.mark.long

FLOWS = 100
PATIENCE_S = 60.0


@pytest.fixture(name="played")
def played_fixture(
    amqp_url: str, database_url: str, create_databases: Callable[..., None], tmp_path: Path
) -> Callable[..., Any]:
    create_databases("theatre")

    @asynccontextmanager
    async def play(**given: Any) -> AsyncIterator[Stage]:
        """One of everything has happened, and the service has stopped."""
        theatre = Theatre()
        theatre.failures["bad"] = [ValueError("no seat")] * 9
        async with Stage(theatre.service, amqp_url, database_url, tmp_path, **given) as stage:
            await stage.publish(Booked(trip="t", seat="1"), id="flow-1")
            await stage.publish(Booked(trip="t", seat="2"), flow="flow-1", id="book-2", cause="x")
            await stage.publish(Charge(trip="t", seat="1"), flow="flow-1", id="charge-1")
            await stage.publish(Begun(trip="u"), id="flow-2")
            await until(lambda: len(stage.events(Held)) == 2, "two seats are held")
            await until(lambda: len(stage.events(Greeted)) == 2, "both are greeted")
            await until(lambda: stage.events(Charged), "one is charged")
            await until(lambda: stage.events(Late), "the deadline has run")
            await stage.publish(TripDied(trip="t"), flow="flow-1", id="died")
            await until(lambda: len(stage.events(Freed)) == 2, "both are freed")
            await until(lambda: stage.events(Refunded), "the payment is refunded")
            await stage.settled()
            yield stage

    return play


async def _audit(stage: Stage, *, is_settled: bool = True) -> Verdict:
    evidence = await audit.gather(stage.settings, stage.url, [stage.service], is_settled=is_settled)
    return audit.judge(evidence)


def _said(verdict: Verdict) -> list[str]:
    return [str(one) for one in verdict.findings]


def _kinds(verdict: Verdict) -> set[tuple[str, str | None]]:
    assert all(one.look_at for one in verdict.findings)
    return {(one.kind, one.handler) for one in verdict.wrong}


async def test_what_is_well_is_found_so(played: Callable[..., Any]) -> None:
    async with played() as stage:
        for is_settled in (True, False):
            verdict = await _audit(stage, is_settled=is_settled)
            assert _said(verdict) == []
            assert (verdict.flows, verdict.judged, verdict.messages) == (2, 2, 15)


async def test_a_letter_is_named(played: Callable[..., Any]) -> None:
    async with played(attempts=1) as stage:
        await stage.publish(Booked(trip="t", seat="bad"), flow="flow-2", id="bad")
        await stage.publish_raw(
            b"{}", exchange="stage", routing_key="stage.booked.v1", type="stage.booked.v1",
            message_id="ugly",
        )  # fmt: skip
        await until(lambda: len(stage.rows("dead")) == 2, "two letters")
        await stage.settled()
        verdict = await _audit(stage)
        assert verdict.wrong == []
        named = {(one.handler, one.message, one.severity) for one in verdict.findings}
        assert named == {
            ("theatre.hold", "bad", Severity.NOTED),
            ("theatre", "ugly", Severity.NOTED),
        }


# Faults.


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_named(played: Callable[..., Any], name: str) -> None:
    forge, found = FAULTS[name]
    async with played() as stage:
        await stage.stop()
        await forge(stage)
        verdict = await _audit(stage)
        assert _kinds(verdict) == found, _said(verdict)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_under_way_is_open(played: Callable[..., Any]) -> None:
    async with played() as stage:
        await stage.stop()
        await stage.publish(Booked(trip="v", seat="3"), id="flow-3")
        verdict = await _audit(stage, is_settled=False)
        [waits] = verdict.of(Severity.OPEN)
        assert (waits.kind, waits.handler, waits.message) == ("missing", "theatre.hold", "flow-3")
        assert verdict.wrong == []
        assert _kinds(await _audit(stage)) == {("missing", "theatre.hold")}


# Whole processes.


async def test_all_processes_after_crashes(system: SystemMaker) -> None:
    """Judged by choreo and by the project's own audits: clean, until somebody cheats."""
    async with system(ALL) as running:
        await running.start()
        await running.under_way(mixed_flows, FLOWS)
        seen = len(running.logs)
        running.kill(*ALL)
        await running.consuming(ALL, since=seen)
        await running.ended()
        await running.stop(*ALL)
        assert _said(await _audit_all(running)) == []

        fulfilled = [one.order_id for one in running.messages(OrderFulfilled)]
        _execute(running, "orders", orders.update().where(orders.c.order_id == fulfilled[0])
                 .values(state="cancelled"))  # fmt: skip
        _execute(running, "inventory", holds.delete().where(holds.c.order_id == fulfilled[1]))
        with closing(sqlite3.connect(running.var / "gateway.db")) as ledger, ledger:
            ledger.execute(
                "INSERT INTO effects (at, kind, key, order_id, reference, amount) SELECT "
                "at, kind, 'again', order_id, reference, amount FROM effects "
                "WHERE kind = 'charge' AND order_id = ?", (fulfilled[2],)
            )  # fmt: skip
        next((running.var / "mail").glob("*.eml")).unlink()
        said = "\n".join(_said(await _audit_all(running)))
        for wrong in (
            f"order: orders: {fulfilled[0]} is cancelled, and announced as fulfilled",
            f"order: inventory: {fulfilled[1]} is fulfilled, and shipped {{}}",
            f"order: orders: {fulfilled[2]} is fulfilled, but outside",
            "mail: notifications: a mail to",
            "stock: inventory:",
        ):
            assert wrong in said


async def _audit_all(running: System) -> Verdict:
    services = list(services_of(ALL).values())
    evidence = await audit.gather(running.settings, running.url, services, is_settled=True)
    checks = [audit.ends(flows(load())), *audit.project_audits("audits")]
    verdict = audit.judge(evidence, checks)
    assert running.placed.keys() <= evidence.ended.keys()
    return verdict


def _execute(running: System, service: str, statement: sa.Update | sa.Delete) -> None:
    assert running.reading(service, lambda db: db.execute(statement).rowcount)


# The command.

_CHECKS = """
from collections.abc import Iterator
from choreo.audit import Evidence, Finding
from agreed.shop import PriceTold

__all__ = ["cheap"]

def cheap(evidence: Evidence) -> Iterator[Finding]:
    for message, told in evidence.of(PriceTold):
        if told.id == "dear":
            yield Finding("price", f"{told.id} is too dear", flow=message.envelope.flow)
"""


async def test_the_command(
    tmp_path: Path, amqp_url: str, database_url: str, create_databases: Callable[..., None]
) -> None:
    create_databases("shop", "desk")
    project = Project(
        tmp_path,
        CHOREO_AMQP_URL=amqp_url,
        CHOREO_DATABASE_URL=database_url,
        CHOREO_AUDITS="checks",
    )
    project.write("checks.py", _CHECKS)
    with project.running("run", "shop") as shop, project.running("run", "desk") as desk:
        await shop.says("consuming")
        await desk.says("consuming")
        sent = [
            project.choreo("send", "shop.ask_price", json.dumps({"id": word}))
            for word in ("one", "two")
        ]
        assert [one.returncode for one in sent] == [0, 0], sent
        flows = [one.stdout.strip() for one in sent]
        engine = connect(Settings(database_url=database_url).database_of("desk"))

        def noted() -> bool:
            with engine.begin() as db:
                return db.scalar(sa.select(sa.func.count()).select_from(inbox)) == len(flows)

        await until(noted, "the desk has noted both", PATIENCE_S)
    clean = project.choreo("audit", "--settled")
    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout == "2 flows, 2 messages, 4 effects: 0 wrong, 0 noted, 0 open\n"

    with engine.begin() as db:
        db.execute(inbox.delete().where(inbox.c.flow == flows[0]))
    dear = project.choreo("audit", "--settled", "--json", "--flow", flows[1][-12:])
    assert dear.returncode == 0, dear.stderr
    assert json.loads(dear.stdout)["judged"] == 1
    wrong = project.choreo("audit", "--settled")
    assert wrong.returncode == 1
    first, second, sums = wrong.stdout.splitlines()
    assert first.startswith("wrong  missing: desk.note: shop.price_told.v1 was not handled (mess")
    assert flows[0] in second
    assert "choreo replay --to desk" in second
    assert sums == "2 flows, 2 messages, 3 effects: 1 wrong, 0 noted, 0 open"
    unknown = project.choreo("audit", "--flow", "ffff")
    assert unknown.returncode == 1
    assert "no flow ffff" in unknown.stderr

    with project.running("run", "shop") as shop:
        await shop.says("consuming")
        project.choreo("send", "shop.ask_price", '{"id": "dear"}')
        await until(
            lambda: "price: dear is too dear" in project.choreo("audit", "--flow", "").stdout,
            "the project's own audit has found something", PATIENCE_S,
        )  # fmt: skip


def test_it_cannot_run_without_a_broker_or_its_module(tmp_path: Path) -> None:
    project = Project(tmp_path)
    alone = project.choreo("audit")
    assert alone.returncode == 2
    assert "no broker" in alone.stderr
    project.env["CHOREO_AUDITS"] = "nowhere"
    unknown = project.choreo("audit")
    assert unknown.returncode == 2
    assert "nowhere cannot be imported" in unknown.stderr
    assert unknown.stderr.count("\n") == 1
