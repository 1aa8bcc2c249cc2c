"""Gathers all that the checks look at: from the project, the broker and every database."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from choreo import discovery, process, topology
from choreo import map as maps
from choreo.audience import agreed
from choreo.envelope import moment
from choreo.errors import CannotRunError, describe
from choreo.management import Json, Management, UnreachableError
from choreo.rabbitmq.survey import Seen, survey
from choreo.service import Service
from choreo.settings import Settings
from choreo.store.database import looked_at
from choreo.store.memory import Kind, Status
from choreo.store.runs import RunStatus
from choreo.store.tables import dead, due, inbox, outbox, owner, runs
from choreo.topology import Topology
from choreo.undo import OWED

#: Side by side: a database that does not answer does not hold up the others.
_THREADS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Managed:
    """What the management API tells."""

    api: Management
    bindings: Sequence[Json]
    queues: Sequence[Json]
    #: None where this user may not see it.
    nodes: Sequence[Json] | None
    topic_permissions: Sequence[Json] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a service's database keeps of work that is not done; ages are in seconds."""

    owner: str
    letters: int = 0
    #: The reason of the newest letter.
    reason: str = ""
    #: How many wait to be published, by wire type, and the age of the oldest.
    outgoing: Mapping[str, int] = field(default_factory=dict)
    outgoing_age_s: float = 0.0
    #: How much should have happened before now, and since when the first of it.
    overdue: int = 0
    overdue_age_s: float = 0.0
    #: Handler and flow of undos that are owed and wait for a person.
    owed: Sequence[tuple[str, str]] = ()
    #: Conductor, flow and age of the last move of runs that are being undone.
    undoing: Sequence[tuple[str, str, float]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the checks look at; a text instead says why something could not be seen."""

    settings: Settings
    services: Sequence[Service]
    wanted: Topology
    #: The contracts as the agreement has them, and as the signatures have them.
    agreement: Mapping[str, Json] | None
    signatures: Mapping[str, Json]
    broker: Seen | str
    management: Managed | str
    #: None where a service has never run.
    databases: Mapping[str, Kept | str | None]

    @property
    def names(self) -> set[str]:
        """The services, and so their queues."""
        return {service.name for service in self.services}


def look(settings: Settings) -> Facts:
    """Look at everything; raises CannotRunError if the project itself cannot be read."""
    services = discovery.services(settings)
    agreement = agreed(settings)
    wanted = topology.of(services)
    hearers = {queue for one in (agreement or {}).values() for queue in one["heard_by"]}
    broker = _broker(settings, wanted, hearers)
    with ThreadPoolExecutor(_THREADS) as pool:
        kept = pool.map(lambda service: _database(service.name, settings), services)
        return Facts(
            settings=settings,
            services=services,
            wanted=wanted,
            agreement=agreement,
            signatures=maps.draw(settings)["contracts"],
            broker=broker,
            management=_management(settings, broker),
            databases={one.name: found for one, found in zip(services, kept, strict=True)},
        )


def _broker(settings: Settings, wanted: Topology, hearers: set[str]) -> Seen | str:
    try:
        return asyncio.run(survey(process.amqp_url(settings), settings, wanted, hearers))
    except CannotRunError as error:
        return str(error)


def _management(settings: Settings, broker: Seen | str) -> Managed | str:
    if isinstance(broker, str):
        return "the broker does not answer"
    try:
        api = Management(settings, process.amqp_url(settings))
        if (cluster := api.cluster()) != broker.cluster:
            return f"{api} belongs to another broker ({cluster}, not {broker.cluster})"
        nodes = permissions = None
        with suppress(UnreachableError):  # a user without the tag 'monitoring'
            nodes = api.nodes()
        with suppress(UnreachableError):  # a user without the tag 'administrator'
            permissions = api.topic_permissions()
        return Managed(
            api=api, bindings=api.bindings(), queues=api.queues(), nodes=nodes,
            topic_permissions=permissions,
        )  # fmt: skip
    except (UnreachableError, ValueError) as error:
        return str(error)


def _database(service: str, settings: Settings) -> Kept | str | None:
    try:
        with looked_at(service, settings) as there:
            return None if there is None else _kept(service, *there)
    except CannotRunError as error:
        return str(error)
    except SQLAlchemyError as error:
        return f"the tables of {service} cannot be read: {describe(error)}"


_OUTGOING = sa.select(outbox.c.routing_key, sa.func.count()).group_by(outbox.c.routing_key)
# Their ids grow with time.
_OLDEST = sa.select(outbox.c.id).order_by(outbox.c.id).limit(1)
_OVERDUE = sa.select(sa.func.count(), sa.func.min(due.c.at)).where(due.c.at < sa.bindparam("now"))
_REASON = sa.select(dead.c.reason).order_by(dead.c.last_failed.desc()).limit(1)
# One whose step is still under way, or due, comes by itself.
_OWED = (
    sa.select(due.c.handler, due.c.flow)
    .join(inbox, inbox.c.message_id == due.c.message_id)
    .where(due.c.kind == Kind.UNDO.value, due.c.at.is_(None), inbox.c.undo == OWED)
    .where(inbox.c.status.in_((Status.DONE.value, Status.PARKED.value)))
    .distinct()
)
_UNDOING = sa.select(runs.c.conductor, runs.c.flow, runs.c.moved).where(
    runs.c.status == RunStatus.UNDOING.value
)


def _kept(service: str, db: Connection, now: float) -> Kept:
    found = db.scalar(sa.select(owner.c.service)) or service
    if found != service:
        return Kept(owner=found)  # what it keeps is not this service's
    overdue, since = db.execute(_OVERDUE, {"now": now}).one()
    oldest = db.scalar(_OLDEST)
    return Kept(
        owner=found,
        letters=db.scalar(sa.select(sa.func.count()).select_from(dead)) or 0,
        reason=db.scalar(_REASON) or "",
        outgoing={row[0]: row[1] for row in db.execute(_OUTGOING)},
        outgoing_age_s=now - _made_at(oldest) if oldest else 0.0,
        overdue=overdue,
        overdue_age_s=now - since if overdue else 0.0,
        owed=[(row.handler, row.flow) for row in db.execute(_OWED)],
        undoing=[
            (row.conductor, row.flow, now - moment(row.moved).timestamp())
            for row in db.execute(_UNDOING)
        ],
    )


def _made_at(message_id: str) -> float:
    """When a message of choreo's own was made, which its id (UUIDv7) begins with."""
    return int(message_id.replace("-", "")[:12], 16) / 1000
