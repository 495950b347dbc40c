"""The guide's tables for one's own machines: in a terminal, as JSON, or as a page to keep."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import click

from launcher.cli.render.table import Column, Row, print_json, print_table
from launcher.planner.published_guide import markdown_lines
from launcher.planner.tables import GuidePage, basis_text, tables


def print_guide(page: GuidePage, *, as_json: bool, markdown: bool) -> None:
    if as_json:
        print_json(page.as_json())
    elif markdown:
        click.echo("\n".join(_markdown(page)))
    else:
        _print_tables(page)


def _print_tables(page: GuidePage) -> None:
    for title, headings, rows in tables(page):
        click.secho(title, bold=True)
        columns = [_column(index, heading) for index, heading in enumerate(headings)]
        print_table(columns, [{"cells": cells} for cells in rows], as_json=False)
        click.echo()
    off = sum(claim.holds.value != "yes" for claim in page.claims)
    click.echo(f"figures: {basis_text(page)}")
    click.echo(
        f"of the guide's {len(page.claims)} lines {off} do not hold, or under a condition only: "
        "--markdown has each with the reason"
    )


def _column(index: int, heading: str) -> Column:
    def cell(row: Row) -> str:
        return str(row["cells"][index])

    return Column(heading, cell)


def _markdown(page: GuidePage) -> Iterator[str]:
    yield f"# The sizing guide for {page.cluster}"
    yield ""
    command = " ".join(filter(None, ("launch plan --all", page.options, "--markdown")))
    yield f"`{command}`, {time.strftime('%Y-%m-%d')}. "
    yield f'Figures: {basis_text(page)}. "guide": what the published guide says, right or wrong.'
    for title, headings, rows in tables(page):
        yield from ("", f"## {title}", "")
        for cells in (headings, ["---"] * len(headings), *rows):
            yield _row(cells)
    yield from ("", "## The published guide, line by line", "")
    yield from markdown_lines(list(page.claims))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
