"""What a message sets off, as a tree: message, handlers, what they say, and so on to the ends."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree

from choreo.map.drawn import Json, handlers
from choreo.map.table import name_of, undo_of

#: A branch that undoes, and one that a clock begins.
_STYLES = {"undo": "red", "deadline": "yellow"}


def tree(drawn: Json, kind: str) -> Tree:
    """The tree of a part of the choreography, from the wire type that sets it off.

    A message that was shown before is not shown again, but referred to.
    """
    shown: set[str] = set()

    # What runs only when time is up comes last.
    found = sorted(handlers(drawn), key=lambda one: one[2]["kind"] == "deadline")

    def grow(branch: Tree, kind: str) -> None:
        shown.add(kind)
        for service, name, handler in found:
            if kind not in handler["consumes"]:
                continue
            style = _STYLES.get(handler["kind"], "dim")
            reaction = branch.add(_handler(drawn, service, name, handler), guide_style=style)
            for said in handler["publishes"]:
                again = said in shown
                leaf = reaction.add(_message(drawn, said, again=again), guide_style="dim")
                if not again:
                    grow(leaf, said)

    root = Tree(_message(drawn, kind), guide_style="dim")
    grow(root, kind)
    return root


def _message(drawn: Json, kind: str, *, again: bool = False) -> Text:
    version = drawn["contracts"][kind]["version"]
    text = Text(name_of(drawn, kind), "dim" if again else "bold")
    if version != 1:
        text.append(f" v{version}")
    ends = {
        word: word in flow["fails"]
        for flow in drawn["flows"].values()
        for word, end in flow["ends"].items()
        if end == kind
    }
    for sign, style, failed in (("■ ends", "green", False), ("□ fails:", "red", True)):
        if words := " or ".join(word for word in ends if ends[word] is failed):
            text.append(f"  {sign} {words}", f"not dim bold {style}")
    if again and any(kind in handler["consumes"] for _, _, handler in handlers(drawn)):
        text.append("  ↑ above", "dim")
    return text


def _handler(drawn: Json, service: str, name: str, handler: Json) -> Text:
    remark, style = undo_of(drawn, handler), _STYLES.get(handler["kind"], "")
    text = Text()
    if handler["kind"] == "undo":
        text.append(f"↶ {service}.{name}  {remark}", style)
    elif handler["kind"] == "deadline":
        text.append(f"◷ {service}.{name}  after {remark}", style)
    else:
        text.append(f"{service}.{name}")
    if handler["calls_outside"]:
        text.append("  calls outside", "magenta")
    return text.append(f"  {handler['place']}", "dim")
