"""`launch runs`: every run that this machine knows of."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from launcher.cli.lazy import LazyGroup
from launcher.cli.options import json_option, notify
from launcher.cli.render.table import Column, Row, print_table
from launcher.operations.list_runs import list_runs


def _figure(key: str, form: str) -> Column:
    def cell(row: Row) -> str:
        return "-" if row[key] is None else format(row[key], form)

    return Column(TITLES.get(key, key), cell, right=True)


def _name(row: Row) -> str:
    return row["run"] if row["cluster"] == "local" else f"{row['cluster']}/{row['run']}"


def _restarts(row: Row) -> str:
    """With the seconds that the last fault has cost."""
    recovery = row["recovery"]
    took = "" if recovery is None else f" ({recovery['seconds']:.0f} s)"
    return f"{row['restarts']}{took}" if row["restarts"] else "-"


COMMANDS = {
    "compare": "Show what runs reached side by side.",
    "remove": "Remove runs and their checkpoints.",
}
TITLES = {"train_loss": "loss", "tokens_per_second": "tok/s"}
COLOURS = {
    "running": "green", "preparing": "green", "waiting": "yellow", "stopping": "yellow",
    "interrupted": "yellow", "failed": "red", "gone": "red",
}  # fmt: skip
COLUMNS = [
    Column("run", _name),
    Column("recipe", lambda row: row["recipe"]),
    Column("status", lambda row: row["status"], style=lambda row: COLOURS.get(row["status"], "")),
    Column("step", lambda row: f"{row['step']:,}/{row['steps']:,}", right=True),
    _figure("train_loss", ".3f"),
    _figure("val_bpb", ".4f"),
    _figure("tokens_per_second", ",.0f"),
    Column("restarts", _restarts, right=True),
    Column("resizes", lambda row: str(row["resizes"] or "-"), right=True),
    Column("started", lambda row: time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created"]))),
]


class _Runs(LazyGroup):
    """A run's name is a likely mistake: `launch runs d4-1`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS:
            raise click.UsageError(
                f"unknown command {args[0]!r}; how a run went: launch logs {args[0]}", ctx
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Runs, package="launcher.cli.runs", commands_help=COMMANDS, invoke_without_command=True
)
@click.option("--cluster", metavar="C", help="Of this cluster only, asked from its head.")
@json_option
@click.pass_context
def command(context: click.Context, cluster: str | None, as_json: bool) -> None:
    """List the runs: how far, how good, how fast; or `compare` or `remove` some of them.

    Without --cluster: those of this machine, and those of clusters that it has seen. Clusters
    with runs that were not seen to end are asked.
    """
    if context.invoked_subcommand is not None:
        if cluster is not None or as_json:
            name = context.invoked_subcommand
            raise click.UsageError(f"Options of `runs {name}` stand behind it", context)
        return
    states = list_runs(cluster, notify=notify)
    rows = [asdict(state) for state in sorted(states, key=lambda state: state.created)]
    print_table(COLUMNS, rows, as_json=as_json, empty="no runs yet: launch recipe d4")
