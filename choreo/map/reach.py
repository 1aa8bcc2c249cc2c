"""What one message, or one flow, sets off: a part of the whole choreography."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from choreo import discovery
from choreo.errors import CannotRunError
from choreo.map.drawn import Json, handlers

_SIDES = ("published_by", "heard_by")
#: Of a service and a handler.
_Key = tuple[str, str]
_Handlers = dict[_Key, Json]


def flow(drawn: Json, name: str, *, without: Collection[str] = ()) -> Json:
    """The part of the choreography that one declared flow is; as `reach`, with its ends alone."""
    found = discovery.named("flow", name, drawn["flows"])
    return reach(drawn | {"flows": {name: found}}, found["starts"], without=without)


def leave_out(drawn: Json, services: Collection[str]) -> Json:
    """A choreography without some services; raises CannotRunError if there is no such service."""
    for name in services:
        discovery.named("service", name, drawn["services"])
    left = {name: one for name, one in drawn["services"].items() if name not in services}
    return drawn | {"contracts": _among(drawn["contracts"], left), "services": left}


def _among(contracts: Json, services: Collection[str]) -> Json:
    """Contracts, as far as some services say and hear them."""
    return {
        kind: one | {side: [name for name in one[side] if name in services] for side in _SIDES}
        for kind, one in contracts.items()
    }


def reach(drawn: Json, message: str, *, without: Collection[str] = ()) -> Json:
    """The part of the choreography that one message sets off, as far as anybody reacts.

    `message`: a wire type, a topic or the name of a class. `without`: services that only watch.
    A handler of a conductor takes part only in a flow in which a run of it begins; an undo only
    where its step does. Raises CannotRunError if there is no such message, or no such service.
    """
    drawn = leave_out(drawn, without)
    every = {(service, name): handler for service, name, handler in handlers(drawn)}
    start = find(drawn, message)
    active = _set_off(drawn, every, start)
    sent = {start, *(kind for handler in active.values() for kind in handler["publishes"])}
    services: Json = {}
    for service, name in (key for key in every if key in active):
        handler = dict(every[service, name])
        handler["consumes"] = [kind for kind in handler["consumes"] if kind in sent]
        found = services.setdefault(service, {"queue": service, "handlers": {}})
        found["handlers"][name] = handler
        if (conductor := handler.get("conductor")) is not None:
            table = drawn["services"][service]["conductors"][conductor]
            found.setdefault("conductors", {})[conductor] = table
    kinds = sent.union(*(_in_table(table) for one in services.values() for table in _tables(one)))
    contracts = {kind: one for kind, one in drawn["contracts"].items() if kind in kinds}
    contracts = _among(contracts, services)
    return {"contracts": contracts, "services": services, "flows": _flows(drawn, start, sent)}


def _set_off(drawn: Json, handlers: _Handlers, start: str) -> _Handlers:
    """The handlers that a message sets off, in every flow that comes to it."""
    said = {kind for one in handlers.values() for kind in one["publishes"]}
    starts = {kind for kind in drawn["contracts"] if kind not in said}
    starts.update(flow["starts"] for flow in drawn["flows"].values())
    found: _Handlers = {}
    for first in {start} if start in starts else starts:
        flow = _follow(handlers, first)
        if first == start or any(start in one["publishes"] for one in flow.values()):
            hear = (one for one in flow.items() if start in one[1]["consumes"])
            begun = {*_before(flow, start), *(_needs(*one) for one in hear)}
            found |= _follow(flow, start, begun=begun)
    return found or _follow(handlers, start)


def _follow(handlers: _Handlers, start: str, *, begun: Collection[_Key | None] = ()) -> _Handlers:
    """The handlers that act on a message and on what these say, and so on."""
    sent, active = {start}, dict[_Key, Json]()
    while True:
        may_act = {None, *active, *begun}
        more = {
            key: handler
            for key, handler in handlers.items()
            if key not in active
            and sent.intersection(handler["consumes"])
            and _needs(key, handler) in may_act
        }
        if not more:
            return active
        active |= more
        sent.update(kind for handler in more.values() for kind in handler["publishes"])


def _before(handlers: _Handlers, start: str) -> set[_Key]:
    """The handlers that lead to a message."""
    found, wanted = set[_Key](), {start}
    while True:
        more = {key for key, one in handlers.items() if wanted.intersection(one["publishes"])}
        if more <= found:
            return found
        found |= more
        wanted.update(kind for key in more for kind in handlers[key]["consumes"])


def _needs(key: _Key, handler: Json) -> _Key | None:
    """What must have begun before a handler can act: the step that it undoes, its conductor."""
    service, name = key
    if "conductor" in handler and name != (begins := f"begin_{handler['conductor']}"):
        return service, begins
    return (service, handler["undoes"]) if "undoes" in handler else None


def _flows(drawn: Json, start: str, sent: Collection[str]) -> Json:
    """The flows that begin so; else those that come from it to an end."""
    flows = drawn["flows"]
    begun = {name: one for name, one in flows.items() if one["starts"] == start}
    return begun or {
        name: one | {"ends": ends, "fails": [word for word in one["fails"] if word in ends]}
        for name, one in flows.items()
        if (ends := {word: kind for word, kind in one["ends"].items() if kind in sent})
    }


def _tables(service: Json) -> Iterable[Json]:
    found: Iterable[Json] = service.get("conductors", {}).values()
    return found


def _in_table(table: Json) -> set[str]:
    """Every message that a conductor's table speaks of."""
    found = {table["starts"], *table["ends"], *table["fails"]}
    for part in (part for stage in table["stages"] for part in stage):
        found.update(*(part.get(name, ()) for name in ("sends", "good", "bad", "undo", "undone")))
    return found


def find(drawn: Json, message: str) -> str:
    """The wire type of a message; raises CannotRunError if none is called so, or several are."""
    contracts: Json = drawn["contracts"]
    names = {wire_type: _names(wire_type, one) for wire_type, one in contracts.items()}
    found = [wire_type for wire_type, called in names.items() if message in called]
    if len(found) > 1:
        raise CannotRunError(f"{message!r} is {' or '.join(found)}: say which")
    if found:
        return found[0]
    meant = get_close_matches(message, [one for called in names.values() for one in called], 1)
    hint = f"; did you mean {meant[0]!r}?" if meant else ""
    raise CannotRunError(f"no message {message!r}{hint}")


def _names(wire_type: str, contract: Json) -> tuple[str, str, str]:
    """What a message is called: its topic, its class, its wire type."""
    return contract["topic"], contract["class"].rpartition(".")[2], wire_type
