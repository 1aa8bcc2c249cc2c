"""Signatures: the choreography is read from them, and a vague one is refused at import."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from functools import partial
from typing import Any, assert_type

import pytest

from choreo import (
    Connection,
    Context,
    DefinitionError,
    Event,
    Service,
    UndeclaredResultError,
    plan,
    topology,
)
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


def test_a_return_annotation_is_taken_at_its_word() -> None:
    def one(asked: Asked) -> Yes: ...  # type: ignore[empty-body]
    def both(asked: Asked) -> tuple[Yes, Yes | No]: ...  # type: ignore[empty-body]
    def many(asked: Asked) -> tuple[Yes, ...] | No: ...  # type: ignore[empty-body]
    def none(asked: Asked) -> None: ...

    fits: list[tuple[Callable[..., Any], list[object]]] = [
        (one, [Yes()]),
        (both, [(Yes(), Yes()), (Yes(), No())]),
        (many, [(), (Yes(),), (Yes(), Yes()), No()]),
        (none, [None]),
    ]
    for fn, every in fits:
        for returned in every:
            read(fn).results(returned)
    refused: list[tuple[Callable[..., Any], object, str]] = [
        (one, (), "returned (); declared Yes"),
        (one, (Yes(),), "returned (Yes); declared Yes"),
        (one, (Yes(), Yes()), "returned (Yes, Yes); declared Yes"),
        (one, [Yes()], "returned list; declared Yes"),
        (both, Yes(), "returned Yes; declared tuple[Yes, Yes | No]"),
        (both, (Yes(),), "returned (Yes); declared tuple[Yes, Yes | No]"),
        (both, (No(), Yes()), "returned (No, Yes); declared tuple[Yes, Yes | No]"),
        (both, None, "returned None; declared tuple[Yes, Yes | No]"),
        (many, None, "returned None; declared No | tuple[Yes, ...]"),
        (many, (No(),), "returned (No); declared No | tuple[Yes, ...]"),
        (many, ("x",) * 9, "returned (str, str, str, str, str, ...); declared No | tuple"),
        (none, (), "returned (); declared None"),
    ]
    for fn, returned, says in refused:
        with pytest.raises(UndeclaredResultError, match=re.escape(says)):
            read(fn).results(returned)


def test_who_may_be_silent() -> None:
    def never(asked: Asked) -> tuple[Yes, No] | Yes: ...  # type: ignore[empty-body]
    def none(asked: Asked) -> Yes | None: ...
    def many(asked: Asked) -> tuple[Yes, ...]: ...  # type: ignore[empty-body]
    def empty(asked: Asked) -> Yes | tuple[()]: ...  # type: ignore[empty-body]

    assert [read(one).may_be_silent for one in (never, none, many, empty)] == [
        False, True, True, True,
    ]  # fmt: skip
    assert read(never).publishes == (Yes, No)


def no_return(asked: Asked): ...  # type: ignore[no-untyped-def]
def bare_return(asked: Asked) -> Event: ...  # type: ignore[empty-body]
def any_return(asked: Asked) -> Any: ...
def bare_message(asked: Event) -> None: ...
def no_annotation(asked) -> None: ...  # type: ignore[no-untyped-def]
def no_message() -> None: ...
def other_message(asked: str) -> None: ...
def other_return(asked: Asked) -> int: ...  # type: ignore[empty-body]
def two_messages(asked: Asked, yes: Yes) -> None: ...
async def connection_outside(asked: Asked, db: Connection) -> None: ...
def unknown(asked: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def no_attribute(asked: re.NoSuchName) -> None: ...  # type: ignore[name-defined]
def not_subscribable(asked: Asked[int]) -> None: ...  # type: ignore[type-arg]
def no_type(asked: 3) -> None: ...  # type: ignore[valid-type]


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (no_return, "say what it publishes"),
        (bare_return, "name the exact events"),
        (any_return, "name the exact events"),
        (bare_message, "Event has no topic"),
        (no_annotation, "'asked' has no annotation"),
        (no_message, "the message it handles"),
        (
            other_message,
            "first take the message it handles: parameter 'asked': .*str'> is no event",
        ),
        (two_messages, "parameter 'yes': it takes one message; a second one is .* of an undo"),
        (other_return, "no event or command"),
        (connection_outside, "takes no connection"),
        (unknown, "cannot read its annotations: NameError"),
        (no_attribute, "cannot read its annotations: AttributeError"),
        (not_subscribable, "cannot read its annotations: TypeError"),
        (no_type, "3 is no event or command"),
    ],
)
def test_a_vague_handler_is_refused_where_it_stands(handler: Callable[..., Any], says: str) -> None:
    with pytest.raises(DefinitionError, match=says) as caught:
        Service("vague").on(handler)
    assert f"{__file__}:" in str(caught.value)


def test_a_final_step_must_say_why() -> None:
    for wrong in (True, " "):
        with pytest.raises(DefinitionError, match=f"{__file__}:.*: answer: 'final' must say why"):

            @Service("vague").on(final=wrong)  # type: ignore[arg-type]
            def answer(asked: Asked) -> None: ...


def test_an_adapter_that_yields_nothing_is_refused_where_it_stands() -> None:
    with pytest.raises(DefinitionError, match=f"{__file__}:.*'yield' the adapter"):

        @Service("vague").adapter  # type: ignore[arg-type]
        async def make() -> AsyncGenerator[Adapter, None]:
            return Adapter()  # type: ignore[return-value]


def test_a_deadline_is_a_time_to_come() -> None:
    for wrong in (120, timedelta(0)):
        with pytest.raises(DefinitionError, match=f"{__file__}:.*must be a timedelta"):

            @Service("vague").deadline(Asked, within=wrong, until=Yes)  # type: ignore[arg-type]
            def answer(asked: Asked) -> None: ...


def test_what_is_no_function_is_refused() -> None:
    for wrong in (partial(other_return), Asked, 3):
        with pytest.raises(DefinitionError, match="is no function"):
            Service("vague").on(wrong)  # type: ignore[arg-type]


def test_an_adapter_with_unreadable_annotations_is_refused_where_it_stands() -> None:
    with pytest.raises(DefinitionError, match=f"{__file__}:.*cannot read its annotations"):

        @Service("vague").adapter
        async def make() -> AsyncGenerator[NoSuchName, None]:  # type: ignore[name-defined]  # noqa: F821
            yield 3


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

    with pytest.raises(DefinitionError, match=r"its cause, then the outcome.*'db'.*Connection'>"):

        @answer.undo
        def without_a_cause(outcome: Yes, db: Connection) -> None: ...

    @answer.undo
    def take_back(cause: Cancelled, outcome: Yes) -> None: ...

    with pytest.raises(DefinitionError, match="has an undo already"):

        @answer.undo
        def twice(cause: Cancelled, outcome: Yes) -> None: ...

    routes = {kind.__name__: [one.key for one in found] for kind, found in service.routes().items()}
    assert routes == {"Asked": ["answer"], "Cancelled": ["take_back"]}


def test_an_undo_stays_a_plain_callable_of_its_own_type() -> None:
    service = Service("typed")

    @service.on
    def answer(asked: Asked) -> Yes | No:
        return Yes()

    @answer.undo
    def take_back(cause: Cancelled, outcome: Yes) -> No:
        return No()

    assert_type(take_back(Cancelled(), Yes()), No)
    take_back(Cancelled(), 3)  # type: ignore[arg-type]


def test_what_is_no_message_ends_nothing() -> None:
    service = Service("wrong")
    with pytest.raises(DefinitionError, match="until: 3 is no event or command"):

        @service.deadline(Yes, within=timedelta(seconds=1), until=3)  # type: ignore[arg-type]
        def late(yes: Yes) -> None: ...

    with pytest.raises(DefinitionError, match="unless: 3 is no event or command"):

        @service.on(final="x", unless=3)  # type: ignore[call-overload, untyped-decorator]
        def answer(asked: Asked) -> None: ...


class OrderPaid(Event, topic="signature.order_paid", subject="order"):
    order: str


class OrderDropped(Event, topic="signature.order_dropped", subject="order"):
    order: str


class Shipped(Event, topic="signature.shipped", subject="shipment"):
    shipment: str


def test_a_cause_must_be_able_to_reach_the_step() -> None:
    service = Service("subjects")

    @service.on
    def answer(heard: OrderPaid | Shipped) -> Yes:
        return Yes()

    says = r"OrderDropped is about 'order' and Shipped about 'shipment', .* or OrderDropped none"
    with pytest.raises(DefinitionError, match=f"{__file__}:.*take_back: {says}"):

        @answer.undo
        def take_back(cause: OrderDropped, outcome: Yes) -> None: ...

    with pytest.raises(DefinitionError, match=f"tell: unless: {says}"):

        @service.on(final="said", unless=Cancelled | OrderDropped)
        def tell(shipped: Shipped) -> Yes:
            return Yes()

    with pytest.raises(DefinitionError, match=f"late: until: {says}"):

        @service.deadline(Shipped, within=timedelta(seconds=1), until=OrderDropped)
        def late(shipped: Shipped) -> None: ...

    with pytest.raises(DefinitionError, match="OrderDropped is about 'order' and Asked about noth"):

        @service.on(final="said", unless=OrderDropped)
        def reply(asked: Asked) -> Yes:
            return Yes()

    @answer.undo
    def take_all_back(cause: Cancelled, outcome: Yes) -> None: ...

    @service.on
    def pay(paid: OrderPaid) -> Yes:
        return Yes()

    @pay.undo
    def pay_back(cause: OrderDropped | Cancelled, outcome: Yes) -> None: ...

    assert set(service.handlers) == {"answer", "take_all_back", "pay", "pay_back"}


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
    for taken in (topology.JOURNAL, topology.CHOREO):
        with pytest.raises(DefinitionError, match="choreo itself uses this name"):
            Service(taken)

    def dead(asked: Asked) -> None: ...

    with pytest.raises(DefinitionError, match=f"{__file__}:.*itself uses this name, for dead"):
        service.on(dead)
