"""What a picture of the choreography is made of: cards in columns, and what each hears and says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from choreo.map.drawn import Json

Kind = Literal["start", "step", "undo", "deadline", "conductor"]


@dataclass(eq=False)
class Card:
    """A handler, a stage of a conductor, or what starts a flow."""

    service: str
    title: str
    kind: Kind
    hears: list[str]
    says: list[str]
    #: What it undoes, when it is due, or which conductor it is of.
    note: str = ""
    summary: str = ""
    calls_outside: bool = False
    has_limit: bool = False
    #: How far it is from the start.
    column: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Two parts of a stage may say, or hear, the same."""
        self.hears = list(dict.fromkeys(self.hears))
        self.says = list(dict.fromkeys(self.says))


def cards(drawn: Json) -> list[Card]:
    """Every card of a choreography, as `choreo.map.draw` found it, each in its column."""
    found = [
        card
        for service, what in drawn["services"].items()
        for card in (*_handlers(service, what), *_stages(service, what))
    ]
    found = [*_starts(drawn, found), *found]
    _place(found)
    return found


def _handlers(service: str, what: Json) -> Iterator[Card]:
    for name, handler in what["handlers"].items():
        if "conductor" in handler:
            continue
        note = f"undoes {handler['undoes']}" if "undoes" in handler else ""
        if "within_s" in handler:
            note = f"after {duration(handler['within_s'])}"
        yield Card(
            service, name, handler["kind"], handler["consumes"], handler["publishes"], note,
            handler.get("summary", ""), handler["calls_outside"],
        )  # fmt: skip


def _stages(service: str, what: Json) -> Iterator[Card]:
    """The stages of the service's conductors; one that waits for no answer joins the next."""
    for name, table in what.get("conductors", {}).items():
        hears, parts = [table["starts"]], list[Json]()
        for stage in table["stages"]:
            parts += stage
            good = [kind for part in stage for kind in part["good"]]
            if good:
                yield _stage(service, name, what, parts, hears)
                hears, parts = good, []
        if parts or table["ends"]:
            yield _stage(service, name, what, parts, hears, ends=table["ends"])
        if (back := _give_up(service, name, table)).says:
            yield back


def _stage(
    service: str,
    name: str,
    what: Json,
    parts: list[Json],
    hears: list[str],
    *,
    ends: Sequence[str] = (),
) -> Card:
    title = " + ".join(part["step"] for part in parts) or "end"
    says = [*(kind for part in parts for kind in part["sends"]), *ends]
    late = (what["handlers"].get(f"{part['step']}_late") for part in parts)
    limits = [handler["within_s"] for handler in late if handler is not None]
    note = f"{name}, within {duration(max(limits))}" if limits else name
    return Card(service, title, "conductor", hears, says, note, has_limit=bool(limits))


def _give_up(service: str, name: str, table: Json) -> Card:
    """What a conductor does when a step was refused, or not answered in time."""
    every = [part for stage in table["stages"] for part in stage]
    undos = [kind for part in reversed(every) for kind in part.get("undo", ())]
    bad = [kind for part in every for kind in part["bad"]]
    undone = [kind for part in reversed(every) for kind in part.get("undone", ())]
    return Card(
        service, "give up", "conductor",
        [*bad, *undone], [*undos, *table["fails"]],
        f"{name}, newest first" if undos else name,
        "A step was refused, or not answered in time: undo what was done.",
    )  # fmt: skip


def _starts(drawn: Json, found: Iterable[Card]) -> Iterator[Card]:
    """What nobody here says starts something."""
    said = {kind for card in found for kind in card.says}
    begun = {flow["starts"] for flow in drawn["flows"].values()}
    done = set[str]()
    for card in found:
        for kind in card.hears:
            if (kind not in said or kind in begun) and kind not in done:
                done.add(kind)
                yield Card(card.service, "", "start", [], [kind])


def _place(found: list[Card]) -> None:
    """Give each card the column after the last that leads to it; what leads back does not count."""
    leads = {card: [one for one in found if set(card.says) & set(one.hears)] for card in found}
    order = _forward(leads)
    for card in order:
        for other in leads[card]:
            other.column = max(other.column, card.column + 1)
    # A deadline stands beside what would have said the same in time.
    for card in found:
        if card.kind == "deadline":
            like = [one.column for one in found if set(card.says) & set(one.says)]
            card.column = max([card.column, *like])


def _forward(leads: dict[Card, list[Card]]) -> list[Card]:
    """The cards, each after all that lead to it; takes out what leads back, depth first."""
    order, begun, done = list[Card](), set[Card](), set[Card]()

    def visit(card: Card) -> None:
        begun.add(card)
        for other in list(leads[card]):
            # That something is undone is told to the conductor that asked for it.
            told = card.kind == "undo" and other.kind == "conductor"
            if told or (other in begun and other not in done):
                leads[card].remove(other)
            elif other not in begun:
                visit(other)
        done.add(card)
        order.append(card)

    for card in leads:
        if card not in begun:
            visit(card)
    return order[::-1]


def duration(seconds: float) -> str:
    """A time in the largest unit that it is a whole number of."""
    if seconds == 86_400:
        return "1 day"
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} s"
