"""`launch stop RUN`: save and stop."""

from __future__ import annotations

import click

from launcher.cli.attach import print_end
from launcher.cli.options import cluster_option, json_option
from launcher.cli.render.run_progress import RunProgress
from launcher.operations.run_address import open_run
from launcher.operations.stop_run import stop_run
from launcher.runs.run import Run, run_address
from launcher.runs.state import RunState, status_of


@click.command()
@click.argument("run")
@cluster_option
@json_option
def command(run: str, cluster: str | None, as_json: bool) -> None:
    """Save a checkpoint and stop a run."""
    with open_run(run, cluster) as opened:
        if opened.refresh() and opened.is_alive():
            save_and_stop(opened)
        else:
            status = status_of(opened.folder, alive=False)
            if opened.cluster != "local" and status == "interrupted":
                opened.request_stop()  # else it would go on when its cluster is up again
            if not as_json:
                click.echo(f"run '{run_address(opened)}' is not running: it is {status}", err=True)
        print_end(opened, as_json=as_json)


def save_and_stop(run: Run) -> None:
    """Returns when it has ended."""
    state = RunState.of(run.folder, alive=True)
    with RunProgress(state.steps, step=state.step) as progress:
        suffix = " after its current step, with a checkpoint" if state.status == "running" else ""
        progress.notify(f"stopping '{run_address(run)}'{suffix}")
        for update in stop_run(run):
            progress.show(update)
