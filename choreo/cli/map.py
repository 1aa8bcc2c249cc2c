"""`choreo map`: who says what, and who hears it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from choreo import map as maps
from choreo import mermaid
from choreo.cli import frame


def show_map(
    message: Annotated[
        str | None,
        typer.Argument(help="Only what this message sets off: its topic or the name of its class."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all of it, as contracts/choreography.json has it.")
    ] = False,
    as_mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Draw it as a Mermaid flowchart.")
    ] = False,
    as_sequence: Annotated[
        bool, typer.Option("--sequence", help="Draw the conductors as Mermaid sequence diagrams.")
    ] = False,
    without: Annotated[
        list[str] | None,
        typer.Option(help="With MESSAGE: leave out a service that only watches. Repeatable."),
    ] = None,
) -> None:
    """Show the choreography that the handlers' signatures form; asks no broker and no database."""
    found = maps.draw(frame.prepare())
    if without and message is None:
        raise typer.BadParameter("--without needs a MESSAGE")
    if message is not None:
        found = maps.reach(found, message, without=without or ())
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if as_mermaid:
        print(mermaid.flowchart(found))
        return
    if as_sequence:
        print(mermaid.sequences(found))
        return
    console = frame.console()
    console.print(_handlers(found), _contracts(found))


def _handlers(found: dict[str, Any]) -> Table:
    table = Table(
        "service", "handler", "hears", "says", "and", title="Services", title_justify="left"
    )
    for service, drawn in found["services"].items():
        table.add_section()
        for number, (name, handler) in enumerate(drawn["handlers"].items()):
            table.add_row(
                "" if number else service,
                name,
                _lines(handler["consumes"]),
                _lines(handler["publishes"]),
                _lines(_remarks(handler)),
            )
    return table


def _remarks(handler: dict[str, Any]) -> list[str]:
    found = ["calls outside"] if handler["calls_outside"] else []
    if "conductor" in handler:
        found.append(f"conducts {handler['conductor']}")
    if "undoes" in handler:
        found.append(f"undoes {handler['undoes']}")
    if "undone_by" in handler:
        found.append(f"undone by {handler['undone_by']}")
    if "final" in handler:
        found.append(f"final: {handler['final']}")
    if "unless" in handler:
        found.append(f"unless {', '.join(handler['unless'])}")
    if "within_s" in handler:
        found.append(f"after {handler['within_s']:g} s without {' or '.join(handler['until'])}")
    return found


def _contracts(found: dict[str, Any]) -> Table:
    table = Table(
        "contract", "kind", "said by", "heard by", title="Contracts", title_justify="left"
    )
    for wire_type, drawn in found["contracts"].items():
        table.add_row(
            wire_type, drawn["kind"], _lines(drawn["published_by"]), _lines(drawn["heard_by"])
        )
    return table


def _lines(parts: list[str]) -> str:
    return "\n".join(parts)
