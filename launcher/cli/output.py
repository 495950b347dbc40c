"""What commands print: one table or JSON document on stdout, and figures as people read them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])
Row = Mapping[str, Any]

SECONDS_PER_YEAR = 365.25 * 86_400


@dataclass(frozen=True)
class Column:
    """`cell`: a row's JSON object -> text. `style`: the same -> a colour, bold, dim or nothing."""

    title: str
    cell: Callable[[Row], str]
    right: bool = False  # figures are read by their last digit
    style: Callable[[Row], str] = lambda row: ""


def json_option(command: Command) -> Command:
    """Adds --json, passed on as `as_json`."""
    option = click.option(
        "--json", "as_json", is_flag=True, help="One JSON document on stdout, nothing else."
    )
    return option(command)


def print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def print_table(
    columns: Sequence[Column], rows: Sequence[Row], *, as_json: bool, empty: str = "nothing yet"
) -> None:
    """Rows are JSON objects: printed as they are, or as a table of their cells.

    `empty` stands in for a table without rows.
    """
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo(empty)
    else:
        _print_cells(columns, rows)


def count(number: float) -> str:
    """36700290 -> 36.7M. Three digits."""
    return _scaled(number, ("", "K", "M", "B", "T"))


def flops(number: float) -> str:
    """75498192 -> 75.5 MFLOPs."""
    return _scaled(number, (" ", " K", " M", " G", " T", " P", " E", " Z")) + "FLOPs"


def size(number: float) -> str:
    """Bytes: 1910000000 -> 1.91 GB, a thousand million."""
    return _scaled(number, (" ", " k", " M", " G", " T")) + "B"


def duration(seconds: float) -> str:
    """12300 -> 3 h 25 min. The two largest units."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds >= SECONDS_PER_YEAR:
        return f"{seconds / SECONDS_PER_YEAR:.1f} years"
    for unit, smaller, length in (("min", "s", 60), ("h", "min", 60), ("d", "h", 24)):
        seconds_per_smaller = {"s": 1, "min": 60, "h": 3600}[smaller]
        whole, rest = divmod(round(seconds / seconds_per_smaller), length)
        if whole < {"min": 60, "h": 24}.get(unit, whole + 1):
            break
    return f"{whole} {unit} {rest} {smaller}" if rest else f"{whole} {unit}"


def _scaled(number: float, units: Sequence[str]) -> str:
    for unit in units[:-1]:
        if abs(number) < 999.5:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:,.3g}{units[-1]}"


def _print_cells(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Aligned, two spaces apart, one line per row. click leaves colours out of pipes and files."""
    titles = [(column.title, "bold") for column in columns]
    lines = [titles]
    lines += [[(column.cell(row), column.style(row)) for column in columns] for row in rows]
    widths = [max(len(text) for text, _ in cells) for cells in zip(*lines, strict=True)]
    color = False if os.environ.get("NO_COLOR") else None
    for line in lines:
        cells = [
            _padded(_styled(text, style), " " * (width - len(text)), right=column.right)
            for (text, style), width, column in zip(line, widths, columns, strict=True)
        ]
        click.echo("  ".join(cells).rstrip(), color=color)


def _padded(text: str, blanks: str, *, right: bool) -> str:
    """Blanks stay outside the colour, where those at a line's end are taken off."""
    return blanks + text if right else text + blanks


def _styled(text: str, style: str) -> str:
    if style in ("bold", "dim"):
        return click.style(text, bold=style == "bold" or None, dim=style == "dim" or None)
    return click.style(text, fg=style) if style else text
