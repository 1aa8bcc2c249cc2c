"""Signatures: the choreography is read from them, and a vague one is refused at import."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Any

import pytest

from choreo import Connection, Context, DefinitionError, Event, Service, UndeclaredResultError, plan
from choreo.signature import read


class Asked(Event, topic="signature.asked"):
    pass


class Cancelled(Event, topic="signature.cancelled"):
    pass


class Yes(Event, topic="signature.yes"):
    pass


class No(Event, topic="signature.no"):
    pass


class Adapter:
    pass


def test_parameters_and_return_are_the_choreography() -> None:
    def handle(asked: Asked | Cancelled, db: Connection, context: Context) -> Yes | No | None: ...

    found = read(handle)
    assert found.consumes == (Asked, Cancelled)
    assert found.publishes == (Yes, No)
    assert found.wants == {"db": Connection, "context": Context}
    assert found.results(None) == ()
    assert found.results(Yes()) == (Yes(),)


def test_a_tuple_publishes_each() -> None:
    def handle(asked: Asked) -> tuple[Yes, No]: ...  # type: ignore[empty-body]

    assert read(handle).results((Yes(), No())) == (Yes(), No())


@pytest.mark.parametrize("returned", [None, No(), (Yes(), No()), "yes"])
def test_what_is_not_announced_is_not_published(returned: object) -> None:
    def handle(asked: Asked) -> Yes: ...  # type: ignore[empty-body]

    with pytest.raises(UndeclaredResultError, match="declared Yes"):
        read(handle).results(returned)


def no_return(asked: Asked): ...  # type: ignore[no-untyped-def]
def bare_return(asked: Asked) -> Event: ...  # type: ignore[empty-body]
def any_return(asked: Asked) -> Any: ...
def bare_message(asked: Event) -> None: ...
def no_annotation(asked) -> None: ...  # type: ignore[no-untyped-def]
def no_message() -> None: ...
def other_message(asked: str) -> None: ...
def other_return(asked: Asked) -> int: ...  # type: ignore[empty-body]
async def connection_outside(asked: Asked, db: Connection) -> None: ...


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (no_return, "say what it publishes"),
        (bare_return, "name the exact events"),
        (any_return, "name the exact events"),
        (bare_message, "Event has no topic"),
        (no_annotation, "'asked' has no annotation"),
        (no_message, "the message it handles"),
        (other_message, "no event or command"),
        (other_return, "no event or command"),
        (connection_outside, "takes no connection"),
    ],
)
def test_a_vague_handler_is_refused_where_it_stands(handler: Callable[..., Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says) as caught:
        Service("vague").on(handler)
    assert f"{__file__}:" in str(caught.value)


def test_a_handler_stays_a_plain_callable() -> None:
    service = Service("plain")

    @service.on
    def answer(asked: Asked) -> Yes:
        """Say yes.

        Whatever was asked.
        """
        return Yes()

    assert answer(Asked()) == Yes()
    assert answer.summary == "Say yes."
    assert answer.source == "/plain/answer"


def test_an_undo_takes_back_what_its_step_publishes() -> None:
    service = Service("undoing")

    @service.on
    def answer(asked: Asked) -> Yes | No:
        return Yes()

    with pytest.raises(DefinitionError, match="undoes Cancelled, which answer does not publish"):

        @answer.undo
        def wrong(cause: Cancelled, outcome: Cancelled) -> None: ...

    @answer.undo
    def take_back(cause: Cancelled, outcome: Yes) -> None: ...

    with pytest.raises(DefinitionError, match="has an undo already"):

        @answer.undo
        def twice(cause: Cancelled, outcome: Yes) -> None: ...

    routes = {kind.__name__: [one.key for one in found] for kind, found in service.routes().items()}
    assert routes == {"Asked": ["answer"], "Cancelled": ["take_back"]}


def test_a_final_step_has_no_undo_and_may_be_kept_from_running() -> None:
    service = Service("finals")

    @service.on(final="said is said", unless=Cancelled)
    def answer(asked: Asked) -> Yes:
        return Yes()

    with pytest.raises(DefinitionError, match="is final"):

        @answer.undo
        def take_back(cause: Cancelled, outcome: Yes) -> None: ...

    assert [one.key for one in service.routes()[Cancelled]] == ["answer.unless"]


def test_a_deadline_needs_no_subscription_for_the_services_own_events() -> None:
    service = Service("deadlines")

    @service.on(final="x")
    def answer(asked: Asked) -> Yes:
        return Yes()

    @service.deadline(Yes, within=timedelta(seconds=1), until=No | Cancelled)
    def late(yes: Yes) -> No:
        return No()

    assert set(service.routes()) == {Asked, Cancelled}
    made = plan.make(service)
    assert (made.arms, made.ends) == ({Yes: (late,)}, {No: (late,)})
    with pytest.raises(DefinitionError, match="first parameter must be Yes"):

        @service.deadline(Yes, within=timedelta(seconds=1), until=No)
        def other(asked: Asked) -> None: ...


def test_names_and_adapters_are_checked() -> None:
    service = Service("checked")

    @service.on
    async def call(asked: Asked, adapter: Adapter) -> Yes:
        return Yes()

    with pytest.raises(DefinitionError, match="declares no adapter Adapter"):
        plan.make(service)

    @service.adapter
    async def make() -> AsyncGenerator[Adapter, None]:
        yield Adapter()

    assert plan.make(service).versions == {"signature.asked": (1,)}
    with pytest.raises(DefinitionError, match=r"checked\.call is already at"):

        @service.on
        def call(asked: Cancelled) -> Yes:
            return Yes()

    with pytest.raises(DefinitionError, match="adapters need 'async def'"):

        @service.on
        def stores(asked: Asked, adapter: Adapter) -> Yes:
            return Yes()

    with pytest.raises(DefinitionError, match="lower case"):
        Service("Not-This")
