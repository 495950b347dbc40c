"""What commands print: one table or JSON document on stdout."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """`cell`: a row's JSON object -> text. `style`: the same -> a colour, bold, dim or nothing."""

    title: str
    cell: Callable[[Row], str]
    right: bool = False  # figures are read by their last digit
    style: Callable[[Row], str] = lambda row: ""


def print_json(document: Any, *, indent: int | None = 2) -> None:
    """Print a document; `indent`: None for one line. JSON has no NaN or infinity: null."""
    try:
        text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError:  # a loss that has diverged
        text = json.dumps(_finite(document), indent=indent, ensure_ascii=False)
    click.echo(text)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


def _print_cells(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Aligned, two spaces apart, one line per row. click leaves colours out of pipes and files."""
    titles = [(column.title, "bold") for column in columns]
    lines = [titles]
    lines += [[(column.cell(row), column.style(row)) for column in columns] for row in rows]
    widths = [max(len(text) for text, _ in cells) for cells in zip(*lines, strict=True)]
    color = False if os.environ.get("NO_COLOR") else None
    for line in lines:
        cells = [
            _pad(_style(text, style), " " * (width - len(text)), right=column.right)
            for (text, style), width, column in zip(line, widths, columns, strict=True)
        ]
        click.echo("  ".join(cells).rstrip(), color=color)


def _pad(text: str, blanks: str, *, right: bool) -> str:
    """Blanks stay outside the colour, where those at a line's end are taken off."""
    return blanks + text if right else text + blanks


def _style(text: str, style: str) -> str:
    if style in ("bold", "dim"):
        return click.style(text, bold=style == "bold" or None, dim=style == "dim" or None)
    return click.style(text, fg=style) if style else text
