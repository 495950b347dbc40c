"""`launch resume RUN`: go on from the newest whole checkpoint."""

from __future__ import annotations

import time

import click

from launcher.cli.attach import report_end, run_here
from launcher.cli.output import json_option
from launcher.cli.place import cluster_option, locate, open_run
from launcher.errors import RunBusy
from launcher.runs.run import Run, shown_name
from launcher.runs.state import status_of
from launcher.runs.submit import require_training_packages


@click.command()
@click.argument("run")
@cluster_option
@click.option("--detach", is_flag=True, help="Leave it in the background.")
@json_option
def command(run: str, cluster: str | None, detach: bool, as_json: bool) -> None:
    """Go on with a run that was stopped, failed or died."""
    where, name = locate(run, cluster)
    if where != "local":
        from launcher.cli.cluster_run import resume_there

        resume_there(where, name, detach=detach, as_json=as_json)
        return
    with open_run(name, "local") as opened:
        if is_to_resume(opened, as_json=as_json):
            require_training_packages("launch resume")
            opened.folder.update_spec(entered=time.time())
            run_here(opened.folder, detach=detach, as_json=as_json)


def is_to_resume(run: Run, *, as_json: bool) -> bool:
    """False where it has made all its steps, which is then said. Raises RunBusy."""
    status = status_of(run.folder, run.refresh())
    name = shown_name(run)
    if status in ("running", "stopping"):
        raise RunBusy(f"run '{name}' is {status}", fix=f"launch logs {name} -f")
    if status == "finished":
        click.echo(f"run '{name}' has made all its steps", err=True)
        report_end(run, as_json=as_json)
    return status != "finished"
