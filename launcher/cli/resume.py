"""`launch resume RUN`: go on from the newest whole checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from launcher.cli.attach import report_end, run_here
from launcher.cli.output import json_option
from launcher.cli.place import cluster_option, locate, open_run
from launcher.errors import InputError, RunBusy
from launcher.runs.changes import CHANGEABLE, changed_recipe, require_whole
from launcher.runs.folder import RunFolder
from launcher.runs.records import read_records
from launcher.runs.run import Run, shown_name
from launcher.runs.state import AT_WORK, RunState, status_of
from launcher.runs.submit import check_text, require_training_packages

SET_HELP = f"Go on with another one of: {', '.join(CHANGEABLE)}."


@click.command()
@click.argument("run")
@cluster_option
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=SET_HELP)
@click.option("--detach", is_flag=True, help="Leave it in the background.")
@json_option
def command(
    run: str, cluster: str | None, settings: tuple[str, ...], detach: bool, as_json: bool
) -> None:
    """Go on with a run that was stopped, failed or died."""
    where, name = locate(run, cluster)
    if where != "local":
        from launcher.cli.cluster_run import resume_there

        resume_there(where, name, settings, detach=detach, as_json=as_json)
        return
    with open_run(name, "local") as opened:
        changes = changed_spec(opened.folder, settings)
        if is_to_resume(opened, as_json=as_json):
            require_training_packages("launch resume")
            with opened.folder.locked():  # not of a run that another command has just begun
                opened.folder.update_spec(entered=time.time(), **changes)
            say_where_it_stands(opened)
            run_here(opened.folder, detach=detach, as_json=as_json)


def changed_spec(folder: RunFolder, settings: Sequence[str]) -> dict[str, Any]:
    """The entry of run.json that `settings` change. Raises ConfigError for one that may not change,
    InputError where all steps are made, or run.json is not enough to go on with."""
    if settings and (folder.summary() or {}).get("status") == "finished":
        raise InputError(
            f"run '{folder.name}' has made all its steps: nothing is left for --set to change",
            fix="leave --set out, or begin a new run with it",
        )
    require_whole(folder)
    spec = folder.spec()
    if not settings:
        return {}
    changed = changed_recipe(spec, settings)
    entry = changed.recipe.model_dump(mode="json")
    if entry["data"] != spec["settings"]["data"]:
        check_text(changed, Path(spec["folder"]), here=spec["cluster"] == "local")
    return {"settings": entry}


def say_where_it_stands(run: Run) -> None:
    """What it has made, and from where it goes on."""
    state = RunState.of(run.folder, alive=False)
    saved = [e["step"] for e in read_records(run.folder.events) if e["kind"] == "checkpoint"]
    newest = f"last saved at step {saved[-1]:,}" if saved else "nothing saved yet"
    click.echo(
        f"run '{shown_name(run)}': {state.step:,} of {state.steps:,} steps, {newest}", err=True
    )


def is_to_resume(run: Run, *, as_json: bool) -> bool:
    """False where it has made all its steps, which is then said. Raises RunBusy."""
    status = status_of(run.folder, run.refresh())
    name = shown_name(run)
    if status in AT_WORK:
        raise RunBusy(f"run '{name}' is {status}", fix=f"launch logs {name} -f")
    if status == "imported":
        raise InputError(
            f"run '{name}' was imported: its optimizer's state is not here to go on with",
            fix=f"launch sample {name}   lets it speak",
        )
    if status == "finished":
        click.echo(f"run '{name}' has made all its steps", err=True)
        report_end(run, as_json=as_json)
    return status != "finished"
