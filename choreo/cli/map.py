"""`choreo map`: who says what, and who hears it."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from choreo import map as maps
from choreo.cli import frame
from choreo.map import mermaid, svg
from choreo.map.table import Row, name_of, rows
from choreo.map.tree import tree


def show_map(
    message: Annotated[
        str | None,
        typer.Argument(help="Only what this message sets off: its topic or the name of its class."),
    ] = None,
    *,
    flow: Annotated[
        str | None, typer.Option(help="Only this flow, as the contracts declare it.")
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(help="Leave out a service that only watches. Repeatable."),
    ] = None,
    as_svg: Annotated[
        bool, typer.Option("--svg", help="Draw it as an SVG picture, for a file.")
    ] = False,
    as_mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Draw it as a Mermaid flowchart.")
    ] = False,
    as_sequence: Annotated[
        bool, typer.Option("--sequence", help="Draw the conductors as Mermaid sequence diagrams.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all of it, as contracts/choreography.json has it.")
    ] = False,
) -> None:
    """Show the choreography that the handlers' signatures form; asks no broker and no database.

    All of it is a table of the messages; what one message sets off, or a flow, is a tree.
    """
    if message is not None and flow is not None:
        raise typer.BadParameter("give a MESSAGE or --flow, not both")
    if as_svg + as_mermaid + as_sequence + as_json > 1:
        raise typer.BadParameter("give one of --svg, --mermaid, --sequence and --json")
    as_text = not (as_svg or as_mermaid or as_sequence or as_json)
    drawn = maps.draw(frame.prepare(), lines=as_text)
    if flow is not None:
        found, title = maps.flow(drawn, flow, without=without or ()), flow
    elif message is not None:
        found = maps.reach(drawn, message, without=without or ())
        title = name_of(drawn, maps.find(drawn, message))
    else:
        found, title = maps.leave_out(drawn, without or ()), "The choreography"
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    elif as_svg:
        print(svg.picture(found, title), end="")
    elif as_mermaid:
        print(mermaid.flowchart(found))
    elif as_sequence:
        print(mermaid.sequences(found))
    elif flow is not None or message is not None:
        start = found["flows"][flow]["starts"] if flow else maps.find(drawn, message or "")
        frame.console().print(tree(found, start))
    else:
        _print_table(list(rows(found)), frame.console())


def _print_table(messages: list[Row], console: Console) -> None:
    """As a table in which no name is cut: side by side where there is room, else stacked."""
    wide = _wide(messages)
    needed = console.measure(wide, options=console.options.update(max_width=sys.maxsize)).minimum
    console.print(wide if needed <= console.width else _narrow(messages))


def _wide(messages: list[Row]) -> Table:
    table = Table("message", "topic", "v", "published by", "who reacts", "undone by", "where")
    for column in table.columns:
        column.no_wrap = column.header != "undone by"
    for row in messages:
        table.add_section()
        first = (row.name, row.topic, str(row.version), "\n".join(row.published_by))
        reactions = [(one.handler, one.undo, one.place) for one in row.reactions]
        for number, reaction in enumerate(reactions or [("", "", "")]):
            table.add_row(*(("",) * 4 if number else first), *reaction)
    return table


def _narrow(messages: list[Row]) -> Table:
    """Below each other, and indented, what stands side by side in the wide table."""
    heads = ("message", "topic, version", "published by"), ("who reacts", "undone by", "where")
    table = Table(*(Column(_stacked(*one)) for one in heads), show_lines=True)
    for row in messages:
        said = _stacked(row.name, f"{row.topic} v{row.version}", *row.published_by)
        reactions = (_stacked(one.handler, one.undo, one.place) for one in row.reactions)
        table.add_row(said, Group(*reactions))
    return table


def _stacked(first: str, *below: str) -> Group:
    under = (Padding(Text(one, "dim", overflow="fold"), (0, 0, 0, 2)) for one in below if one)
    return Group(Text(first, overflow="fold"), *under)
