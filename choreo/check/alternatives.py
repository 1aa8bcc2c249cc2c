"""What a return annotation lets a handler publish, and what each message is then about."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement, product

from choreo.check.state import ALL
from choreo.signature import MessageType, Returns

#: One thing that a handler may do: publish these (by number), each about this.
Alternative = tuple[tuple[int, int], ...]
#: About what the message is about that it answers.
SAME = -2
#: The outcome of a step that said nothing.
NOTHING = -1


def choices(
    returns: Returns, index: Mapping[MessageType, int], about: str | None
) -> tuple[Alternative, ...]:
    """What an annotation announces, in answer to a message about a field.

    A tuple of any length stands for none and for two, also where both are about the same.
    """
    every = [_numbered((kind,), index, about) for kind in returns.single]
    for several in returns.several:
        if several.repeats:
            pairs = combinations_with_replacement(several.places[0], 2)
            every += [_numbered(pair, index, about, apart=True) for pair in pairs]
            every.append(())
        else:
            every += [_numbered(kinds, index, about) for kinds in product(*several.places)]
    if returns.none:
        every.append(())
    return tuple(dict.fromkeys(every))


def _numbered(
    kinds: tuple[MessageType, ...],
    index: Mapping[MessageType, int],
    about: str | None,
    *,
    apart: bool = False,
) -> Alternative:
    """Each with what it is about; where the field is new, several have subjects of their own.

    `apart`: also several of different kinds.
    """
    found: list[tuple[int, int]] = []
    for place, kind in enumerate(kinds):
        own = kind.__address__.subject
        like = [number for number, other in enumerate(kinds) if apart or other is kind]
        if own is None or own == about:
            found.append((index[kind], ALL if own is None else SAME))
        else:
            found.append((index[kind], 1 + like.index(place) if len(like) > 1 else 0))
    return tuple(found)
