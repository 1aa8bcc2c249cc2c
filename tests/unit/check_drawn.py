"""Choreographies made up at random, as hypothesis draws them: sound ones and unsound ones."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import reduce
from itertools import count
from operator import or_
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from choreo import Ask, Command, Conductor, Event, Flow, Service
from choreo.check import Choreography


def _kind(name: str, subject: str | None, base: Any = Event) -> Any:
    fields = {"__annotations__": {"job": str, "item": str}, "__module__": __name__}
    found = types.new_class(
        name,
        (base,),
        {"topic": f"drawn.{name.lower()}", "subject": subject},
        lambda space: space.update(fields),
    )
    globals()[name] = found
    return found


GO = _kind("Go", "job")
_EVENTS = [_kind(f"E{n}", "job") for n in range(4)]
_ITEMS = [_kind(f"I{n}", "item") for n in range(2)]
_WHOLE = _kind("W", None)
_ENDS = [_kind(f"End{n}", "job") for n in range(3)]
_UNDONE = [_kind("U0", "job"), _kind("U1", "item")]
#: What a conductor asks for and is answered, step by step; what it undoes, and hears of that.
_ABOUT = ("job", "item")
_DO, _UNDO = ([_kind(f"{what}{of}", of, Command) for of in _ABOUT] for what in ("Do", "Undo"))
_GOOD, _BAD, _BACK = (
    [_kind(f"{what}{of}", of) for of in _ABOUT] for what in ("Good", "Bad", "Back")
)
#: By other names, for choreographies that are written down.
END, UNDONE, HELD, CANCELLED = _ENDS[0], _UNDONE[0], _EVENTS[0], _WHOLE
ASKED, BOOKED, REFUSED = *_ITEMS, _UNDONE[1]
#: A handler publishes only what comes after all that it hears, so that no flow goes round.
_ORDER = [*(GO, _EVENTS[0], *_ITEMS, *_EVENTS[1:], *_GOOD, *_BAD, *_BACK, _WHOLE, *_ENDS, *_UNDONE)]
_flows = count()


@dataclass
class _Plan:
    """A step or a deadline to be declared."""

    service: int
    hears: list[Any]
    says: list[Any]
    style: str
    is_async: bool
    within: timedelta
    stops: list[Any] = field(default_factory=list)

    @property
    def kinds(self) -> list[Any]:
        """What it may publish."""
        return [one for said in self.says for one in _named(said) if one not in (None, Ellipsis)]


@st.composite
def choreographies(draw: st.DrawFn) -> Choreography:
    """Up to three services of a few handlers, and one flow."""
    plans, published = list[_Plan](), [GO]
    services = [Service(f"s{n}") for n in range(3)]
    conducts: bool = draw(st.booleans())
    if conducts:
        published += draw(_conducted(services))
    for _ in range(draw(st.integers(0, 2) if conducts else st.integers(2, 4))):
        plans.append(draw(_plans(published, ("final", "unless", "undo", "undo", "undo"))))
        published += plans[-1].kinds
    for _ in range(draw(st.integers(0, 2))):
        plans.append(draw(_plans(published, ("deadline",))))
        published += plans[-1].kinds
    if draw(st.integers(0, 3)):
        plans.append(draw(_deciders(published)))
        published += plans[-1].kinds
    ends = [one for one in _ENDS if one in published]
    assume(ends)
    for number, plan in enumerate(plans):
        known = [one for one in dict.fromkeys([*published[1:], *ends]) if _reaches(one, plan.hears)]
        if plan.style != "final" and known:
            # Mostly an end, as in life.
            wanted = st.sampled_from([*known, *(one for one in known if one in ends)])
            plan.stops = draw(st.lists(wanted, min_size=1, max_size=2, unique=True))
        _declare(services[plan.service], number, plan)
    words = {one.__name__.lower(): one for one in ends}
    fails = [word for word in words if draw(st.integers(0, 3))]
    flow = Flow(f"drawn_{next(_flows)}", starts=GO, ends=words, fails=fails)
    return Choreography([one for one in services if one.handlers], [flow], _ORDER)


def written(choreography: Choreography) -> str:
    """What a person wants to read of one."""
    lines = []
    for service in choreography.services:
        for one in service.handlers.values():
            heard = " | ".join(kind.__name__ for kind in one.signature.consumes)
            more = [("outcomes", one.signature.outcomes), ("unless", getattr(one, "unless", ()))]
            more += [("until", getattr(one, "until", ()))]
            shown = " ".join(f"{what}={[k.__name__ for k in of]}" for what, of in more if of)
            form = "async " if one.is_async else ""
            final = "final " if getattr(one, "final", None) else ""
            said = one.signature.returns
            lines.append(
                f"{form}{final}{one.kind} {service.name}.{one.name}({heard}) -> {said} {shown}"
            )
    return "\n".join(lines)


@st.composite
def _plans(draw: st.DrawFn, published: list[Any], styles: tuple[str, ...]) -> _Plan:
    style: str = draw(st.sampled_from(styles))
    is_async: bool = draw(st.booleans())
    service: int = draw(st.integers(0, 2))
    several: bool = draw(st.booleans())
    guarded: int = draw(st.integers(0, 4))
    items = [one for one in _ITEMS if one in published]
    known = st.sampled_from([*dict.fromkeys(published), *items, *items])
    most = 1 if style == "deadline" else 2
    hears = draw(st.lists(known, min_size=1, max_size=most, unique=True))
    later = _ORDER[1 + max(_ORDER.index(one) for one in hears) :]
    assume(later)
    # Now and then it goes back, and so round.
    back = [] if draw(st.integers(0, 2)) else published[1:]
    kind = st.sampled_from([one for one in (*later, *back) if one not in (*_GOOD, *_BAD, *_BACK)])
    said = st.one_of(kind, kind, kind, st.tuples(kind, kind).map(_tuple))
    says: list[Any] = draw(st.lists(said, min_size=1, max_size=2, unique_by=str))
    if several and _ITEMS[0] in later:
        says.append(_tuple((draw(st.sampled_from([_ITEMS[0], _ITEMS[0] | _ITEMS[1]])), ...)))
    within = draw(st.sampled_from([timedelta(seconds=1), timedelta(days=40)]))
    plan = _Plan(service, hears, says, style, is_async, within)
    ends = set(_ENDS).intersection(plan.kinds)
    if ends and guarded:
        plan.service = 0  # mostly one service decides, and only once
    if guarded if ends else not guarded:
        plan.says.append(None)
    return plan


@st.composite
def _deciders(draw: st.DrawFn, published: list[Any]) -> _Plan:
    """Who ends the flow after any of what it hears."""
    known = [one for one in dict.fromkeys(published) if one not in (*_ENDS, *_UNDONE)]
    hears = draw(st.lists(st.sampled_from(known), min_size=1, max_size=4, unique=True))
    says = draw(st.lists(st.sampled_from(_ENDS), min_size=1, max_size=2, unique=True))
    return _Plan(0, hears, [*says, None], "final", is_async=False, within=timedelta())


@st.composite
def _conducted(draw: st.DrawFn, services: list[Service]) -> list[Any]:
    """A conductor of one or two steps, and who does what it asks for; gives what they all say."""
    end, steps, said = draw(st.sampled_from(_ENDS)), list[Ask](), list[Any]()
    within = draw(st.sampled_from([timedelta(seconds=1), timedelta(days=40)]))
    for number in draw(st.sampled_from([[0], [1], [0, 1]])):
        do, undo, good, bad, back = (one[number] for one in (_DO, _UNDO, _GOOD, _BAD, _BACK))
        makes = do if number == 0 else draw(st.sampled_from([do, do | None, _tuple((do, ...))]))
        undoes = draw(st.sampled_from(["sent", "awaited", "awaited", ""]))
        takes: str = draw(st.sampled_from(["undo", "undo", "end", "final"]))
        ask, unask = f"ask{number}", f"unask{number}"
        step = Ask(
            _written(ask, {"go": GO, "return": makes}, by_name=True),
            good=good,
            bad=bad if draw(st.booleans()) else None,
            undo=_written(unask, {"go": GO, "return": undo}, by_name=True) if undoes else None,
            undone=back if undoes == "awaited" else None,
            within=within,
        )
        steps.append(step)
        is_async, at = draw(st.booleans()), services[draw(st.integers(0, 2))]
        works = {"message": do, "return": good | bad if step.bad else good}
        work = _written(f"work{number}", works, is_async=is_async)
        cause = undo if undoes else _WHOLE
        if takes in ("undo", "end"):
            cause = cause | draw(st.sampled_from([_WHOLE, *_ENDS])) if takes == "end" else cause
            assume(all(_reaches(one, [do]) for one in getattr(cause, "__args__", (cause,))))
            wants = {"cause": cause, "outcome": good, "return": back}
            at.on(work).undo(_written(f"unwork{number}", wants, undo=True))
        else:
            at.on(final="drawn")(work)
        said += [do, good, *([bad] if step.bad else []), *([undo, back] if undoes else [])]
    fails = draw(st.sampled_from([None, *_ENDS]))
    Conductor(
        services[draw(st.integers(0, 1))],
        "table",
        starts=GO,
        steps=draw(st.sampled_from([steps, [steps]])),
        ends=_written("finish", {"go": GO, "return": end}, by_name=True),
        fails=fails and _written("fail", {"go": GO, "return": fails}, by_name=True),
    )
    return [one for one in (*said, end, fails) if one and issubclass(one, Event)]


def _named(said: Any) -> tuple[Any, ...]:
    """What stands in an annotation."""
    return tuple(kind for part in getattr(said, "__args__", ()) for kind in _named(part)) or (said,)


def _reaches(cause: Any, begun_by: list[Any]) -> bool:
    about = cause.__address__.subject
    return about is None or all(one.__address__.subject == about for one in begun_by)


def _declare(service: Service, number: int, plan: _Plan) -> None:
    returned = reduce(or_, plan.says[1:], plan.says[0]) if len(plan.says) > 1 else plan.says[0]
    heard, stops = _any(plan.hears), _any(plan.stops)
    if plan.style == "deadline":
        assume(plan.stops)
        [armed] = plan.hears
        late = _written(f"late{number}", {"message": armed, "return": returned})
        service.deadline(armed, within=plan.within, until=stops)(late)
        return
    is_async = plan.is_async
    fn = _written(f"step{number}", {"message": heard, "return": returned}, is_async=is_async)
    if plan.style != "undo" or not plan.stops:
        service.on(final="drawn", unless=stops)(fn)
        return
    step = service.on()(fn)
    wants = {"cause": stops, "outcome": _any(plan.kinds), "return": _UNDONE[number % 2]}
    step.undo(_written(f"undo{number}", wants, undo=True))


def _tuple(parts: tuple[Any, ...]) -> Any:
    return types.GenericAlias(tuple, parts)


def _any(kinds: list[Any]) -> Any:
    return reduce(or_, kinds) if kinds else None


def _written(
    name: str,
    annotations: dict[str, Any],
    *,
    is_async: bool = False,
    undo: bool = False,
    by_name: bool = False,
) -> Callable[..., Any]:
    """A function as somebody might have written it."""

    def step(message: Any) -> Any:
        raise NotImplementedError

    async def call(message: Any) -> Any:
        raise NotImplementedError

    def back(cause: Any, outcome: Any) -> Any:
        raise NotImplementedError

    def build(go: Any) -> Any:
        raise NotImplementedError

    fn: Callable[..., Any] = back if undo else call if is_async else build if by_name else step
    fn.__name__, fn.__annotations__ = name, annotations
    return fn
