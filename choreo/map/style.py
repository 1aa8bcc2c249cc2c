"""How the picture looks: colours for light and dark, letters, lines and signs."""

from __future__ import annotations

CSS = """
svg {
  color-scheme: light dark;
  --ground: #fff; --lane: #f4f6f8; --card: #fff; --edge: #c3cad3; --ink: #1b2027; --mute: #5d6773;
  --flow: #2f6fbe; --undo: #c4460c; --deadline: #8a6100;
  --outside: #7a3fb5; --outside-card: #f8f2fe; --conductor: #0f766e; --conductor-card: #effaf8;
}
@media (prefers-color-scheme: dark) { svg {
  --ground: #0e1116; --lane: #161b22; --card: #1f262f; --edge: #3d4652; --ink: #e8ecf1;
  --mute: #9aa5b1; --flow: #6cabf5; --undo: #ff9466; --deadline: #e0b341;
  --outside: #c49bf5; --outside-card: #2a2238; --conductor: #4fc7b8; --conductor-card: #17302e;
} }
text {
  font: 12px Inter, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif;
  fill: var(--ink);
}
.title { font-size: 17px; font-weight: 600; }
.service, .name { font-size: 13px; font-weight: 600; }
.note { font-size: 11px; fill: var(--mute); }
.said { text-anchor: end; }
.said.unheard { fill: var(--mute); }
.starts, .ends, .fails { fill: var(--ground); font-weight: 600; text-anchor: middle; }
.ends, .fails { font-size: 11px; }
.ground { fill: var(--ground); }
.lane { fill: var(--lane); }
.card { fill: var(--card); stroke: var(--edge); }
.conductor .card { fill: var(--conductor-card); stroke: var(--conductor); }
.card.outside { fill: var(--outside-card); stroke: var(--outside); }
.undo .card { stroke: var(--undo); stroke-dasharray: 5 3; }
.deadline .card { stroke: var(--deadline); }
.pill { fill: var(--ink); }
.pill.fails { fill: var(--ground); stroke: var(--undo); }
text.fails { fill: var(--undo); }
.icon { fill: none; stroke-width: 1.4; stroke-linecap: round; stroke-linejoin: round; }
.icon.outside { stroke: var(--outside); }
.icon.undo { stroke: var(--undo); }
.icon.deadline { stroke: var(--deadline); }
.icon.conductor { stroke: var(--conductor); }
.halo { fill: none; stroke: var(--ground); stroke-width: 5; }
.line { fill: none; stroke-width: 1.6; }
.line.flow { stroke: var(--flow); }
.line.undo { stroke: var(--undo); stroke-dasharray: 6 4; }
.line.deadline { stroke: var(--deadline); stroke-dasharray: 1.5 3.5; stroke-linecap: round; }
.tip.flow { fill: var(--flow); }
.tip.undo { fill: var(--undo); }
.tip.deadline { fill: var(--deadline); }
.net:hover .line { stroke-width: 3; }
"""

#: Each drawn in a square of 14 by 14 pixels.
ICONS = {
    "outside": "M7 1.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M1.5 7h11M7 1.5c-3.4 3.4-3.4 7.6 0 11"
    "c3.4-3.4 3.4-7.6 0-11",
    "undo": "M5 2.5L2 5.5L5 8.5M2 5.5H8.5a3 3 0 0 1 0 6H5",
    "deadline": "M7 1.5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11M7 4v3.2l2.3 1.6",
    "conductor": "M2.5 11.5L11.5 2.5M8.5 2H12V5.5M2 8.2V12H5.8",
}
#: What the picture's legend says of them, of the ends, and of the lines.
SIGNS = {
    "outside": "calls the outside world",
    "undo": "undoes a step",
    "deadline": "has a time limit",
    "conductor": "a stage of a conductor",
}
ENDS = {"ends": "ends the flow", "fails": "ends it, and all is undone"}
LINES = {"flow": "sets off", "undo": "sets off an undo", "deadline": "starts the clock"}

_NARROW, _BROAD = frozenset("ijltfrI.,:' _"), frozenset("mwMW+")


def width(text: str, size: float) -> float:
    """About how wide a text is in letters of this size, both in pixels; no font is asked."""
    return size * sum(map(_letter, text))


def _letter(one: str) -> float:
    if one in _NARROW:
        return 0.36
    if one in _BROAD:
        return 0.88
    return 0.7 if one.isupper() else 0.58
