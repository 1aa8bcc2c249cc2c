"""One transaction of a service: claim in the inbox, handle, remember, announce in the outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from sqlalchemy import Connection

from choreo import contract, dead, deadline, failure, outside, undo
from choreo.contract import Message, decode, encode
from choreo.envelope import Envelope, moment, timestamp
from choreo.envelope import read as read_envelope
from choreo.errors import describe
from choreo.failpoint import reach
from choreo.identity import Ids
from choreo.log import in_hand
from choreo.outgoing import make
from choreo.plan import Plan
from choreo.record import delivery_from, properties_of
from choreo.seams import Delivery, Outgoing
from choreo.service import Handler
from choreo.settings import Settings
from choreo.signature import Context
from choreo.store.database import OutageError, require_usable
from choreo.store.memory import Kind, Known, Memory, Row, Status, envelope_json
from choreo.work import Due, Effects, Finished, Item, ItemFailedError, Letter, Unit, judge


@dataclass(frozen=True, slots=True)
class Tools:
    """What every transaction of a process shares."""

    plan: Plan
    settings: Settings
    ids: Ids
    random: Random
    #: Names this instance in leases.
    owner: str


class Transaction:
    """The work on one batch, within one open database transaction.

    Everything that it does is undone by a rollback; what must happen outside (publish, call)
    is left in `effects` for after the commit.
    """

    def __init__(self, tools: Tools, db: Connection, now: float) -> None:
        self.tools = tools
        self.plan = tools.plan
        self.db = db
        self.memory = Memory(db)
        self.effects = Effects()
        #: The database's time, in seconds since 1970.
        self.now = now
        self.known: dict[tuple[str, str], Known] = {}
        self._at = now
        self._time = timestamp(now)
        self._buried: set[tuple[str, str, str]] = set()

    def run(self, items: Sequence[Item], forget: Sequence[str] = ()) -> Effects:
        """Handle the items in order; raises ItemFailedError for the first that fails.

        It names no item when what they left cannot be written and they are several.
        """
        item: Item | None = None
        try:
            self.memory.forget(forget)
            self.load(items)
            for item in items:
                self._handle(item)
            item = items[0] if len(items) == 1 else None
            reach("handled")
            return self.finish()
        except Exception as error:
            if failure.concerns_database(error):
                raise OutageError(describe(error)) from error
            raise ItemFailedError(item) from error

    def finish(self) -> Effects:
        """Write what was gathered, and look when the next thing is due."""
        self.memory.flush()
        next_due = self.memory.next_due()
        self.effects.next_due_s = None if next_due is None else next_due - self.now
        reach("written")
        return self.effects

    def load(self, items: Sequence[Item]) -> None:
        """Read what is known of the messages and flows in hand."""
        units = [item for item in items if isinstance(item, Unit)]
        if not units:
            return
        self.known.update(self.memory.known(list({unit.envelope.id for unit in units})))
        if self.plan.stoppable:
            self._buried |= self.memory.buried(unit.envelope.flow for unit in units)

    def _handle(self, item: Item) -> None:
        match item:
            case Unit() if item.due is not None and self._is_deadly(item.due):
                failure.park_deadly(self, item, item.due)
            case Unit():
                if self._claim(item):
                    reach("claimed")
                    _ROLES[item.route.role](self, item)
            case Due(row):
                self._handle_due(row)
            case Finished():
                outside.finish(self, item)
            case Letter(delivery, reason, envelope):
                dead.refuse(self, delivery, reason, envelope)

    def _is_deadly(self, row: Row) -> bool:
        crashes: int = row["crashes"]
        return crashes >= self.tools.settings.crashes

    def _claim(self, unit: Unit) -> bool:
        """Whether this unit is to be handled now, and by us."""
        if unit.due is not None:
            return self.memory.claim(unit.due)
        known = self.known.get((unit.envelope.id, unit.route.key))
        if known is None:
            return True
        if known.digest != unit.digest:
            reason = f"its id was already handled by {unit.route.key} with another body"
            dead.refuse(self, unit.delivery, reason, unit.envelope)
            return False
        return known.status == Status.BEGUN

    def run_step(self, unit: Unit) -> None:
        """Handle a message, or begin the outside call that does."""
        step = unit.route.handler
        buried = self.is_buried(unit.envelope.flow, step.name, unit.envelope.subject)
        if buried and not undo.may_have_acted(self, unit):
            undo.step_cancelled(self, unit)
            self.remember(unit, Status.CANCELLED)
            self.note("info", "cancelled before it began", unit)
        elif step.is_async:
            outside.begin(self, unit)
        else:
            results = self.invoke(step, (unit.message,), unit.envelope, unit.envelope.id)
            bodies = self.announce(step, unit.envelope, results)
            self.remember(unit, Status.DONE, outcome=undo.outcome_json(step, results, bodies))

    def run_undo(self, unit: Unit) -> None:
        """Take back what the message undoes."""
        undo.for_cause(self, unit)
        self.remember(unit, Status.DONE)

    def run_unless(self, unit: Unit) -> None:
        """Keep a final step from running."""
        undo.stop(self, unit)
        self.remember(unit, Status.DONE)

    def run_arm(self, unit: Unit) -> None:
        """Start a deadline."""
        deadline.arm(self, unit.route.handler, unit.envelope, unit.delivery)
        self.remember(unit, Status.DONE)

    def run_until(self, unit: Unit) -> None:
        """End a deadline."""
        deadline.end(self, unit.route.handler, unit.envelope.flow, unit.envelope.subject)
        self.remember(unit, Status.DONE)

    def _handle_due(self, row: Row) -> None:
        handler = self.plan.service.handlers.get(row["handler"].partition(".")[0])
        if self._is_deadly(row):
            dead.park_due(self, row, failure.died(row["crashes"]), None)
        elif row["kind"] == Kind.RETRY and not row["handler"]:
            self._deliver_again(row)
        elif handler is None:
            reason = f"{self.plan.service.name} has no handler {row['handler']!r} any more"
            dead.park_due(self, row, reason, None)
        elif row["kind"] == Kind.RETRY:
            reason = f"{self.plan.service.name}.{handler.name} does not take this message any more"
            dead.park_due(self, row, reason, None)
        elif row["kind"] == Kind.DEADLINE:
            deadline.run(self, handler, row)
        elif row["kind"] == Kind.UNDO:
            undo.run_owed(self, handler, row)
        elif row["kind"] == Kind.CALL:
            outside.again(self, handler, row)

    def _deliver_again(self, row: Row) -> None:
        """A letter that no handler could take was sent back: judge it anew."""
        if self.memory.claim(row):
            delivery = delivery_from(row["properties"], row["body"])
            limit = self.tools.settings.max_body_bytes
            items = judge(self.plan, delivery, self.now, limit)
            self.load(items)
            for item in items:
                self._handle(item)

    # The pieces that the above is made of.

    def invoke(
        self,
        handler: Handler[..., Any],
        messages: tuple[Message, ...],
        cause: Envelope,
        key: str,
    ) -> tuple[Message, ...]:
        """Call a `def` handler within this transaction; `cause` is the message in hand."""
        wanted = handler.signature.wants
        context = self.context(cause, key) if Context in wanted.values() else None
        wants = {name: self.db if kind is Connection else context for name, kind in wanted.items()}
        in_hand.set((handler.name, cause))
        try:
            returned = handler.fn(*messages, **wants)
        finally:
            in_hand.set(None)
        require_usable(self.db)
        return handler.signature.results(returned)

    def announce(
        self, handler: Handler[..., Any], cause: Envelope, results: Sequence[Message]
    ) -> list[bytes]:
        """Put what a handler returned into the outbox; gives the bodies."""
        bodies: list[bytes] = []
        for result in results:
            body = encode(result)
            bodies.append(body)
            limit = self.tools.settings.max_body_bytes
            outgoing = self.publish(result, body, handler.source, cause, max_body_bytes=limit)
            deadline.seen_own(self, outgoing, result)
        return bodies

    def publish(
        self,
        message: Message,
        body: bytes,
        source: str,
        cause: Envelope | None,
        *,
        max_body_bytes: int | None = None,
    ) -> Outgoing:
        """Put one message into the outbox, caused by another or starting a flow.

        Raises UndeclaredResultError if no service would take it.
        """
        identifier = self.tools.ids.next()
        outgoing = make(
            message,
            body,
            identifier=identifier,
            time=self._time,
            source=source,
            cause=cause,
            max_body_bytes=max_body_bytes,
        )
        lease_until = self.now + self.tools.settings.lease_s
        self.memory.store(outgoing, envelope_json(outgoing.envelope), self.tools.owner, lease_until)
        self.effects.outgoing.append(outgoing)
        return outgoing

    def context(self, envelope: Envelope, key: str) -> Context:
        """What surrounds a message, for a handler."""
        return Context(
            flow=envelope.flow,
            message_id=envelope.id,
            type=envelope.type,
            source=envelope.source,
            time=moment(envelope.time),
            subject=envelope.subject,
            causation=envelope.causation,
            key=key,
        )

    def revive(self, row: Row) -> tuple[Envelope, Message]:
        """The message that a row of `due` holds, understood."""
        envelope, delivery = self.envelope_of(row)
        return envelope, self.message_of(envelope.type, delivery.body)

    def envelope_of(self, row: Row) -> tuple[Envelope, Delivery]:
        """The message that a row of `due` holds."""
        delivery = delivery_from(row["properties"], row["body"])
        return read_envelope(delivery, self.now), delivery

    def message_of(self, wire_type: str, body: bytes) -> Message:
        """A message of any contract that this process has imported."""
        topic, _, version = wire_type.rpartition(".v")
        return decode(contract.contracts()[(topic, int(version))], body)

    def due_row(self, kind: Kind, handler: str, unit: Unit, **values: Any) -> Row:
        """A row of `due` for the message in hand."""
        return {
            "kind": kind.value,
            "handler": handler,
            "message_id": unit.envelope.id,
            "flow": unit.envelope.flow,
            "subject": unit.envelope.subject,
            "at": None,
            "owner": None,
            "attempts": 0,
            "crashes": 0,
            "first_failed": None,
            "last_failed": None,
            "error": None,
            "properties": properties_of(unit.delivery),
            "body": unit.delivery.body,
            **values,
        }

    def load_flow(self, flow: str) -> None:
        """Read the tombstones of a flow that only now came in hand."""
        self._buried |= self.memory.buried((flow,))

    def is_buried(self, flow: str, handler: str, subject: str | None) -> bool:
        """Whether a tombstone keeps a handler from running in a flow in hand."""
        if not self._buried:
            return False
        return (flow, handler, "") in self._buried or (
            subject is not None and (flow, handler, subject) in self._buried
        )

    def bury(self, flow: str, handler: str, subject: str | None) -> None:
        """Keep a handler from running in a flow from now on."""
        stone = (flow, handler, subject or "")
        if stone in self._buried:
            return
        if stone not in self.memory.buried((flow,)):
            self.memory.bury(*stone, at=self.tick())
        self._buried.add(stone)

    def remember(
        self, unit: Unit, status: Status, *, outcome: str | None = None, crashes: int = 0
    ) -> None:
        """Write down how far a message has come with a handler."""
        envelope, key = unit.envelope, unit.route.key
        if unit.due is not None or (envelope.id, key) in self.known:
            values: dict[str, Any] = {"status": status.value, "outcome": outcome}
            if status is Status.BEGUN:
                values["crashes"] = crashes
            self.memory.revise(envelope.id, key, **values, at=self.tick())
        else:
            self.memory.remember(
                message_id=envelope.id,
                handler=key,
                digest=unit.digest,
                flow=envelope.flow,
                subject=envelope.subject,
                status=status,
                outcome=outcome,
                crashes=crashes,
                at=self.tick(),
            )
        self.known[(envelope.id, key)] = Known(unit.digest, status, crashes)

    def lost_at(self) -> float:
        """When what is begun now counts as lost with its process."""
        return self.now + self.tools.settings.lease_s

    def tick(self) -> float:
        """A time for a row, later than every one before it in this transaction."""
        self._at += 1e-6
        return self._at

    def note(self, level: str, event: str, unit: Unit, **values: object) -> None:
        """A log line for after the commit."""
        envelope = unit.envelope
        values.update(
            handler=unit.route.key, flow=envelope.flow, message_id=envelope.id, type=envelope.type
        )
        self.effects.notes.append((level, event, values))


_ROLES: dict[str, Callable[[Transaction, Unit], None]] = {
    "step": Transaction.run_step,
    "undo": Transaction.run_undo,
    "unless": Transaction.run_unless,
    "arm": Transaction.run_arm,
    "until": Transaction.run_until,
}
