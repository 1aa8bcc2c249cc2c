"""A flow as a tree: which event led to which, who published it, and when."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from rich.text import Text
from rich.tree import Tree

from choreo import envelope as envelopes
from choreo.dead import DeadLettered
from choreo.envelope import Envelope, moment
from choreo.seams import Delivery
from choreo.terminal import shown

_DEAD = DeadLettered.__address__.wire_type
#: How far rich indents a level of a tree.
_INDENT = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A command: not in the journal, but known from what it led to."""

    id: str
    #: The wire type.
    type: str
    #: The last event before it, or the flow's first message.
    cause: str | None

    @property
    def name(self) -> str:
        """The topic, with the version where that is not the first."""
        return shown(self.type.removesuffix(".v1"))


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of the journal."""

    envelope: Envelope
    #: What its JSON body says; the bare text where it is no JSON, or nested too deep.
    body: Any

    @property
    def id(self) -> str:
        """Its message's id."""
        return self.envelope.id

    @property
    def cause(self) -> str | None:
        """The id of the message that it answers; None starts a flow."""
        return self.envelope.causation

    @property
    def asked(self) -> Asked | None:
        """The command that it answers, unless an event or the flow's first message is the cause."""
        envelope = self.envelope
        if envelope.command is None or envelope.causation in (None, envelope.flow):
            return None
        return Asked(envelope.causation, envelope.command, envelope.last_event)

    @property
    def name(self) -> str:
        """The topic, with the version where that is not the first."""
        return shown(self.envelope.type.removesuffix(".v1"))

    @property
    def publisher(self) -> str:
        """Who announced it, as `service.handler`."""
        return shown(self.envelope.source.strip("/").replace("/", "."))

    @property
    def at(self) -> float:
        """When it was announced, in seconds since 1970."""
        return moment(self.envelope.time).timestamp()

    @property
    def gave_up(self) -> str | None:
        """The handler that gave a message up (as a `source`), if that is what this announces."""
        if self.envelope.type != _DEAD or not isinstance(self.body, dict):
            return None
        return f"/{self.body.get('service')}/{self.body.get('handler')}"

    @property
    def reason(self) -> str | None:
        """Which handler that was, and why."""
        if self.gave_up is None:
            return None
        handler = self.body.get("handler")
        return shown(f"{f'{handler}: ' if handler else ''}{self.body.get('reason')}")

    def as_json(self, began: float) -> dict[str, Any]:
        """What a machine is told of it."""
        envelope = self.envelope
        after = {"command": envelope.command, "last_event": envelope.last_event}
        return {
            "flow": envelope.flow,
            "id": envelope.id,
            "causation": envelope.causation,
            **{name: value for name, value in after.items() if value is not None},
            "type": envelope.type,
            "source": envelope.source,
            "subject": envelope.subject,
            "time": envelope.time,
            "after_ms": after_ms(self, began),
            "body": self.body,
        }


def read(delivery: Delivery, now: float) -> Entry:
    """Understand a delivery of the journal; raises UndecodableError if it is no message of ours."""
    envelope = envelopes.read(delivery, now)
    try:
        return Entry(envelope, json.loads(delivery.body))
    except (ValueError, RecursionError):
        return Entry(envelope, delivery.body.decode(errors="replace"))


class Flow:
    """The events of one flow, in whatever order they come in."""

    def __init__(self, flow_id: str, *, starts_with: str | None = None) -> None:
        """`starts_with`: the wire type of the command that began it, where that is known."""
        self.id = flow_id
        self.starts_with = starts_with
        self.entries: dict[str, Entry] = {}
        #: The commands that some of them answer, by id.
        self.commands: dict[str, Asked] = {}
        self._answers: dict[str | None, list[Entry | Asked]] = {}

    def add(self, entry: Entry) -> bool:
        """Take an event in; False if it is known: the journal may hold one twice."""
        if entry.id in self.entries:
            return False
        self.entries[entry.id] = entry
        asked = entry.asked
        if asked is not None and asked.id not in self.commands:
            self.commands[asked.id] = asked
            self._answers.setdefault(asked.cause, []).append(asked)
        self._answers.setdefault(entry.cause, []).append(entry)
        return True

    @property
    def began(self) -> float:
        """When its first message was made, in seconds since 1970."""
        return min((made_at(self.id), *(one.at for one in self.entries.values())))

    def walk(self) -> Iterator[Entry]:
        """Every event once, a cause before what it led to."""
        return (one for one in self._messages() if isinstance(one, Entry))

    def _messages(self) -> Iterator[Entry | Asked]:
        done: set[tuple[type, str]] = set()
        known = {**self.commands, **self.entries}
        tops = [cause for cause in self._answers if cause not in known]
        # Strangers may name each other as the cause: such a circle hangs below no top.
        for top in (*tops, *known):
            waiting = self._answers.get(top, [])[::-1]
            while waiting:
                one = waiting.pop()
                # A stranger may also name an event as the command that it answers.
                if (key := (type(one), one.id)) not in done:
                    done.add(key)
                    yield one
                    waiting += self._answers.get(one.id, [])[::-1]

    def as_tree(self) -> Tree:
        """The flow for a person."""
        about = (one.envelope.subject for one in self.entries.values())
        subjects = sorted({subject for subject in about if subject})
        tree = Tree(self._title(subjects), guide_style="dim")
        branches: dict[str | None, tuple[Tree, int]] = {None: (tree, 0), self.id: (tree, 0)}
        rows: list[tuple[Entry, Tree, int]] = []
        for one in self._messages():
            cause = one.cause
            if cause not in branches:
                unseen = Text(f"{short(cause or '')}, which is not in the journal", style="dim")
                branches[cause] = (tree.add(unseen), 1)
            above, depth = branches[cause]
            branch = above.add(Text(one.name, style="dim"))
            branches[one.id] = (branch, depth + 1)
            if isinstance(one, Entry):
                rows.append((one, branch, depth + 1))
        began = self.began
        names = max((len(one.name) + depth * _INDENT for one, _, depth in rows), default=0)
        publishers = max((len(one.publisher) for one, _, _ in rows), default=0)
        for entry, branch, depth in rows:
            name = entry.name.ljust(names - depth * _INDENT)
            branch.label = Text(f"{name}  {entry.publisher:{publishers}}")
            branch.label.append(f"  {after_ms(entry, began):>7} ms")
            if len(subjects) > 1 and entry.envelope.subject:
                branch.label.append(f"  {shown(entry.envelope.subject, longest=24)}")
            if entry.reason is not None:
                branch.label.append(f"  {entry.reason}")
                branch.label.stylize("bold red")
        return tree

    def as_json(self) -> dict[str, Any]:
        """The flow for a machine; who led to whom is in `causation`."""
        began = self.began
        return {"flow": self.id, "events": [one.as_json(began) for one in self.walk()]}

    def _title(self, subjects: list[str]) -> Text:
        title = Text(f"flow {shown(self.id)}", style="bold")
        if self.starts_with is not None:
            title.append(f"  {self.starts_with.removesuffix('.v1')}")
        if len(subjects) == 1:
            title.append(f"  {shown(subjects[0])}", style="not bold")
        return title


def made_at(flow_id: str) -> float:
    """When the first message of a flow was made, where its id is a time-ordered UUID (version 7).

    That message may be a command, which the journal does not keep. Infinity where nobody knows.
    """
    try:
        identifier = UUID(flow_id)
    except ValueError:
        return float("inf")
    return (identifier.int >> 80) / 1000 if identifier.version == 7 else float("inf")


def after_ms(entry: Entry, began: float) -> int:
    """How long after the flow's first message an event was announced."""
    return round((entry.at - began) * 1000)


def short(flow_id: str) -> str:
    """The end of an id: its beginning is the time, and like that of its neighbours."""
    return shown(flow_id[-8:])
