"""launch size: how large the models are, beside what the guide says."""

from __future__ import annotations

from collections.abc import Callable

import click

from launcher.cli.options import json_option
from launcher.cli.render.sizes import print_size
from launcher.cli.render.table import Column, Row, print_table
from launcher.formatting import format_bytes, format_count
from launcher.planner.size_table import TOLERANCE, all_sizes, find_size


@click.command("size")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
def command(names: tuple[str, ...], as_json: bool) -> None:
    """Show the sizing table, the guide's figures beside ours.

    NAME is a recipe, or dN for any depth N. Without one: all recipes. With a single one, below its
    row: parameters, FLOPs and state by part, horizons, and what public runs reached, with sources.

    \b
    context   tokens seen at once, and how far layers look back (S short, L all)
    FLOP/tok  training, forward and backward
    state     weights, gradients and optimizer of one worker in float32
    ✗ x0.64   the guide's figure is 0.64 of ours; up to 5% is its rounding
    """
    sizes = [find_size(name) for name in names] if names else all_sizes()
    rows = [size.as_json() for size in sizes]
    print_table(COLUMNS, rows, as_json=as_json)
    if len(names) == 1 and not as_json:
        print_size(rows[0])


def _ratio(guide: float | None, ours: float) -> float | None:
    """Guide / ours; None where the guide has no figure."""
    return None if guide is None else guide / ours


def _parameters_ratio(row: Row) -> float | None:
    return _ratio(row["guide"].get("parameters"), row["parameters"]["total"])


def _flops_ratio(row: Row) -> float | None:
    return _ratio(row["guide"].get("flops_per_token"), row["flops_per_token"])


def _guide_column(key: str, ratio: Callable[[Row], float | None]) -> Column:
    """The guide's figure with a mark: off by more than the tolerance, and how far."""

    def is_off(row: Row) -> bool:
        return abs((ratio(row) or 1) - 1) > TOLERANCE

    def cell(row: Row) -> str:
        off = ratio(row)
        if off is None:
            return "-"
        return f"{format_count(row['guide'][key])} {f'✗ x{off:.2f}' if is_off(row) else '✓'}"

    def style(row: Row) -> str:
        return "dim" if ratio(row) is None else "red" if is_off(row) else "green"

    return Column("guide says", cell, style=style)


COLUMNS = [
    Column("size", lambda row: row["name"], style=lambda row: "bold"),
    Column("dim", lambda row: f"{row['dim']}", right=True),
    Column("heads", lambda row: f"{row['heads']}", right=True),
    Column("context", lambda row: f"{row['sequence_length']} {row['window_pattern']}", right=True),
    Column("params", lambda row: format_count(row["parameters"]["total"]), right=True),
    _guide_column("parameters", _parameters_ratio),
    Column("FLOP/tok", lambda row: format_count(row["flops_per_token"]), right=True),
    _guide_column("flops_per_token", _flops_ratio),
    Column("state", lambda row: format_bytes(row["state_bytes"]), right=True),
]
