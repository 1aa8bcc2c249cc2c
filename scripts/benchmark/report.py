"""What a run of the bench found: as tables, and as one JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmark.flow import HOPS, Times
from benchmark.variants import TARGETS, VARIANTS, Target

_TITLES = {one.key: one.title for one in VARIANTS}


@dataclass
class Rates:
    """Messages a second by variant, one figure for each round."""

    journal: bool
    by_variant: dict[str, list[float]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What was the same for all."""
        return f"One hop, the journal bound to {'every event' if self.journal else 'nothing'}"

    def add(self, key: str, rate: float) -> None:
        """Enter a measurement."""
        self.by_variant.setdefault(key, []).append(rate)

    def ratio(self, who: str, whom: str) -> float | None:
        """How many times as fast: the median over the rounds, as a round is one moment."""
        ours, theirs = self.by_variant.get(who), self.by_variant.get(whom)
        if not ours or not theirs:
            return None
        return median(a / b for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True)
class Report:
    """All of it."""

    settings: Mapping[str, str]
    hops: Sequence[Rates]
    order: Times | None

    @property
    def targets(self) -> list[tuple[Target, float]]:
        """Every target that was measured, with the ratio that was reached."""
        first = next((one for one in self.hops if not one.journal), None)
        if first is None:
            return []
        reached = ((one, first.ratio(one.who, one.whom)) for one in TARGETS)
        return [(one, ratio) for one, ratio in reached if ratio is not None]

    @property
    def is_met(self) -> bool:
        """Whether no target was missed."""
        return all(ratio >= target.at_least for target, ratio in self.targets)

    def show(self, console: Console) -> None:
        """Print it."""
        for rates in self.hops:
            console.print(_rates(rates))
        if self.targets:
            console.print(_targets(self.targets))
        if self.order:
            console.print(_order(self.order))
        table = Table("setting", "", title="Settings and versions", title_justify="left")
        for name, value in self.settings.items():
            table.add_row(name, value)
        console.print(table)

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        return {
            "settings": dict(self.settings),
            "hops": [
                {
                    "journal_bound": rates.journal,
                    "messages_per_second": {
                        key: {
                            "median": round(median(found)),
                            "lowest": round(min(found)),
                            "highest": round(max(found)),
                            "rounds": [round(one) for one in found],
                        }
                        for key, found in rates.by_variant.items()
                    },
                }
                for rates in self.hops
            ],
            "targets": [
                {
                    "variant": target.who,
                    "against": target.whom,
                    "at_least": target.at_least,
                    "ratio": round(ratio, 3),
                    "met": ratio >= target.at_least,
                }
                for target, ratio in self.targets
            ],
            "order": self.order and _figures(self.order),
        }


def _rates(rates: Rates) -> Table:
    table = Table(
        "variant", title=rates.title, title_justify="left",
        caption="messages a second over the rounds", caption_justify="left",
    )  # fmt: skip
    for name in ("median", "lowest", "highest", "to raw", "to FastStream"):
        table.add_column(name, justify="right")
    for key, found in rates.by_variant.items():
        ratios = (rates.ratio(key, peer) for peer in ("raw", "faststream"))
        table.add_row(
            _TITLES[key],
            *(f"{value:,.0f}" for value in (median(found), min(found), max(found))),
            *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        )
    return table


def _targets(targets: Sequence[tuple[Target, float]]) -> Table:
    table = Table("variant", "against", title="Targets, of the first table", title_justify="left")
    for name in ("times as fast", "at least"):
        table.add_column(name, justify="right")
    table.add_column("")
    for target, ratio in targets:
        is_met = ratio >= target.at_least
        table.add_row(
            _TITLES[target.who],
            _TITLES[target.whom],
            f"{ratio:.2f}",
            f"{target.at_least:g}",
            Text("✓ met", style="green") if is_met else Text("✗ missed", style="bold red"),
        )
    return table


def _order(times: Times) -> Table:
    figures = _figures(times)
    table = Table(
        "milliseconds", title="One order at a time, from PlaceOrder to OrderFulfilled",
        title_justify="left",
    )  # fmt: skip
    for name in ("median", "99th percentile"):
        table.add_column(name, justify="right")
    for title, key in (
        ("the whole order, two outside calls included", "order_ms"),
        ("one raw hop: publish, deliver, ack", "raw_hop_ms"),
        (f"its {HOPS} raw hops", "raw_hops_ms"),
    ):
        table.add_row(title, *(f"{figures[key][name]:.2f}" for name in ("median", "p99")))
    return table


def _figures(times: Times) -> dict[str, Any]:
    order, raw = _in_ms(times.orders), _in_ms(times.raw_hops)
    return {
        "orders": len(times.orders),
        "hops": HOPS,
        "order_ms": order,
        "raw_hop_ms": raw,
        "raw_hops_ms": {name: round(value * HOPS, 3) for name, value in raw.items()},
    }


def _in_ms(seconds: Sequence[float]) -> dict[str, float]:
    percentiles = quantiles(seconds, n=100, method="inclusive")
    return {"median": round(median(seconds) * 1000, 3), "p99": round(percentiles[98] * 1000, 3)}
