"""`launch runs`: every run that this machine knows of."""

from __future__ import annotations

from dataclasses import asdict

import click

from launcher.cli.lazy import LazyGroup
from launcher.cli.options import json_option, notify
from launcher.cli.render.run_list import RUN_COLUMNS
from launcher.cli.render.table import print_table
from launcher.operations.list_runs import list_runs

COMMANDS = {
    "compare": "Show what runs reached side by side.",
    "remove": "Remove runs and their checkpoints.",
}


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
    print_table(RUN_COLUMNS, rows, as_json=as_json, empty="no runs yet: launch recipe d4")
