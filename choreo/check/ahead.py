"""Looks ahead: what may come of a message, of handing it to somebody, or of time that is up."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from choreo.service import Deadline, Handler

if TYPE_CHECKING:
    from choreo.check.model import Model, Receiver


class Ahead:
    """What may be said at once or later; sets of kinds are bits."""

    def __init__(self, model: Model, ended: Collection[str] = ()) -> None:
        """`ended`: services that have ended the flow, and so say no other end if they may not."""
        self._model, self._ended = model, ended
        #: At once, by receiver and kind.
        self.at_once = {
            (receiver.number, kind): self._said(receiver, kind)
            for kind, receivers in model.to.items()
            for receiver in receivers
        }
        #: At once or later, by kind; then by receiver and kind, and by deadline.
        self.of_kind = closure(self.next_to(self.at_once))
        self.of_delivery = {key: self.with_later(said) for key, said in self.at_once.items()}
        self.of_deadline = {
            number: self.with_later(self._says(one, model.index[one.signature.consumes[0]]))
            for number, one in enumerate(model.handlers)
            if isinstance(one, Deadline)
        }

    def with_later(self, kinds: int) -> int:
        """These kinds, and all that may come of them."""
        for kind in members(kinds):
            kinds |= self.of_kind[kind]
        return kinds

    def next_to(
        self, said: Mapping[tuple[int, int], int], without: Collection[int] = ()
    ) -> dict[int, int]:
        """What comes at once of each kind, by what is said of it and by deadlines but for some.

        A service's own messages arm its deadlines, though it is not handed them.
        """
        model, found = self._model, dict.fromkeys(range(len(self._model.kinds)), 0)
        for (_, kind), more in said.items():
            found[kind] |= more
        for number, one in enumerate(model.handlers):
            if isinstance(one, Deadline) and number not in without:
                for own in set(one.service.published).intersection(one.signature.consumes):
                    found[model.index[own]] |= self._says(one, model.index[own])
        return found

    def _said(self, receiver: Receiver, kind: int) -> int:
        if receiver.role in ("unless", "until"):
            return 0
        conducted = self._model.conducted.get((receiver.number, kind), ())
        handlers = conducted if receiver.handler is None else [receiver.handler]
        found = 0
        for handler in handlers:
            found |= self._says(handler, kind)
        return found

    def _says(self, handler: Handler[..., Any], kind: int) -> int:
        model = self._model
        if handler.conductor is not None:
            return model.bits(handler.signature.publishes)
        has_ended = handler.service.name in self._ended
        found = 0
        for alternative in model.choices(handler, kind, has_ended=has_ended):
            for said, _ in alternative:
                found |= 1 << said
        return found


def members(kinds: int) -> Iterator[int]:
    """The kinds of a set of bits."""
    while kinds:
        low = kinds & -kinds
        yield low.bit_length() - 1
        kinds ^= low


def closure(at_once: dict[int, int]) -> dict[int, int]:
    """What comes at once or later, if this comes at once."""
    found = dict(at_once)
    changed = True
    while changed:
        changed = False
        for kind, kinds in found.items():
            more = kinds
            for one in members(kinds):
                more |= found[one]
            changed |= more != kinds
            found[kind] = more
    return found
