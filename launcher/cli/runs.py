"""`launch runs`: every run of this machine."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from launcher.cli.output import Column, Row, json_option, print_table
from launcher.runs.folder import all_runs
from launcher.runs.state import RunState


def _figure(key: str, form: str) -> Column:
    def cell(row: Row) -> str:
        return "-" if row[key] is None else format(row[key], form)

    return Column(TITLES.get(key, key), cell, right=True)


TITLES = {"train_loss": "loss", "tokens_per_second": "tok/s"}
COLOURS = {"running": "green", "failed": "red", "interrupted": "yellow"}
COLUMNS = [
    Column("run", lambda row: row["run"]),
    Column("recipe", lambda row: row["recipe"]),
    Column("status", lambda row: row["status"], style=lambda row: COLOURS.get(row["status"], "")),
    Column("step", lambda row: f"{row['step']:,}/{row['steps']:,}", right=True),
    _figure("train_loss", ".3f"),
    _figure("val_bpb", ".4f"),
    _figure("tokens_per_second", ",.0f"),
    Column("started", lambda row: time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))),
]


@click.command()
@json_option
def command(as_json: bool) -> None:
    """List the runs: how far, how good, how fast."""
    rows = [asdict(RunState.of(folder)) for folder in all_runs()]
    print_table(COLUMNS, rows, as_json=as_json, empty="no runs yet: launch recipe d4")
