"""launch size: how large the models are, beside what the guide says."""

from __future__ import annotations

import click

from launcher.cli.options import json_option
from launcher.cli.render.size_columns import SIZE_COLUMNS
from launcher.cli.render.sizes import print_size
from launcher.cli.render.table import print_table
from launcher.planner.size_table import all_sizes, find_size


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
    print_table(SIZE_COLUMNS, rows, as_json=as_json)
    if len(names) == 1 and not as_json:
        print_size(rows[0])
