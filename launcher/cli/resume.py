"""`launch resume RUN`: go on from the newest whole checkpoint."""

from __future__ import annotations

import time

import click

from launcher.cli.attach import report_end, run_here
from launcher.cli.output import json_option
from launcher.errors import RunBusy
from launcher.runs.folder import find_run
from launcher.runs.state import status_of
from launcher.runs.submit import require_training_packages


@click.command()
@click.argument("run")
@click.option("--detach", is_flag=True, help="Leave it in the background.")
@json_option
def command(run: str, detach: bool, as_json: bool) -> None:
    """Go on with a run that was stopped, failed or died."""
    folder = find_run(run)
    status = status_of(folder)
    if status in ("running", "stopping"):
        raise RunBusy(f"run '{folder.name}' is {status}", fix=f"launch logs {folder.name} -f")
    if status == "finished":
        click.echo(f"run '{folder.name}' has made all its steps", err=True)
        report_end(folder, as_json=as_json)
        return
    require_training_packages("launch resume")
    folder.update_spec(entered=time.time())
    run_here(folder, detach=detach, as_json=as_json)
