"""`launch runs compare RUN...`: runs side by side."""

from __future__ import annotations

import click

from launcher.cli.options import cluster_option, json_option, notify
from launcher.cli.render.comparison import print_comparison
from launcher.cli.render.table import print_json
from launcher.errors import InputError
from launcher.operations.run_address import open_run_to_read
from launcher.runs.compare import compare_runs
from launcher.runs.folder import RunFolder
from launcher.runs.history import RunHistory
from launcher.runs.run import run_address
from launcher.runs.state import RunState


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@cluster_option
@json_option
def command(runs: tuple[str, ...], cluster: str | None, as_json: bool) -> None:
    """Show what runs reached side by side, at equal tokens too, and what was set differently."""
    if len(runs) < 2:
        raise InputError("a comparison needs two runs", fix="launch runs compare RUN OTHER")
    document = compare_runs(*zip(*(_read(name, cluster) for name in runs), strict=True))
    if as_json:
        print_json(document)
        return
    print_comparison(document)


def _read(name: str, cluster: str | None) -> tuple[RunFolder, RunState, RunHistory]:
    with open_run_to_read(name, cluster, notify=notify) as run:
        alive = run.refresh()
        state = RunState.of(run.folder, alive if run.is_live else None)
        return run.folder, state, RunHistory.of(run.folder, run_address(run))
