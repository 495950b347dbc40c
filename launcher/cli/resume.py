"""`launch resume RUN`: go on from the newest whole checkpoint."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from launcher.cli.attach import print_end, run_local
from launcher.cli.render.table import json_option
from launcher.cli.run_address import cluster_option, open_run, resolve_run
from launcher.errors import InputError, RunBusy
from launcher.runs.extend import describe_schedule, extend_run, last_saved
from launcher.runs.folder import RunFolder
from launcher.runs.overrides import CHANGEABLE, apply_overrides, require_complete_spec
from launcher.runs.run import Run, run_address
from launcher.runs.state import AT_WORK, RunState, status_of
from launcher.runs.submit import require_text, require_training_packages
from nanochat.optimizer.schedule import Schedule

EXTEND_HELP = (
    "So many steps more than it was to make: --extend 500 makes 1,500 of 1,000. What the learning "
    "rate does then is said first."
)
WAIT_HELP = "Until the hosts of its cluster answer, however long that takes; Ctrl-C ends it."
SET_HELP = f"Go on with another one of: {', '.join(CHANGEABLE)}."


@click.command()
@click.argument("run")
@cluster_option
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=SET_HELP)
@click.option(
    "--extend", type=click.IntRange(min=1), metavar="STEPS", help=EXTEND_HELP,
)  # fmt: skip
@click.option("--wait", "waits", is_flag=True, help=WAIT_HELP)
@click.option("--detach", is_flag=True, help="Leave it in the background.")
@json_option
def command(
    run: str,
    cluster: str | None,
    settings: tuple[str, ...],
    extend: int | None,
    waits: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Go on with a run that was stopped, failed or died; with --extend also with a finished one."""
    where, name = resolve_run(run, cluster)
    if where != "local":
        from launcher.cli.cluster_resume import ClusterResume

        options = (settings, extend)
        ClusterResume(where, name, *options, waits=waits).run(detach=detach, as_json=as_json)
        return
    if waits:
        raise InputError("--wait: this machine is no cluster to wait for", fix="leave it out")
    with open_run(name, "local") as opened:
        changes = updated_spec(opened.folder, settings, extend)
        if should_resume(opened, as_json=as_json, extends=extend is not None):
            require_training_packages("launch resume")
            print_changes(opened.folder, changes)
            with opened.folder.locked():  # not of a run that another command has just begun
                opened.folder.update_spec(entered=time.time(), **changes)
            print_position(opened)
            run_local(opened.folder, detach=detach, as_json=as_json)


def updated_spec(folder: RunFolder, settings: Sequence[str], extend: int | None) -> dict[str, Any]:
    """The entries of run.json that these options change. Raises ConfigError for a setting that may
    not change, InputError where all steps are made, or run.json is not enough to go on with."""
    if settings and not extend and (folder.summary() or {}).get("status") == "finished":
        raise InputError(
            f"run '{folder.name}' has made all its steps: nothing is left for --set to change",
            fix="leave --set out, or prolong it: --extend STEPS",
        )
    require_complete_spec(folder)
    spec = folder.spec()
    changed = apply_overrides(
        spec, settings
    )  # also where nothing changes: it may be edited by hand
    changes: dict[str, Any] = {}
    if settings:
        entry = changes["settings"] = changed.recipe.model_dump(mode="json")
        if entry["data"] != spec["settings"]["data"]:
            require_text(changed, Path(spec["folder"]), here=spec["cluster"] == "local")
    if extend:
        changes |= extend_run(folder, changes.get("settings", spec["settings"]), extend)
    return changes


def print_changes(folder: RunFolder, changes: dict[str, Any]) -> None:
    """Where a run is prolonged: what its schedule does then."""
    if "extended" in changes:
        warmup = changes["settings"]["warmup_steps"]
        entry = changes["extended"][-1]
        before, after = (Schedule(entry[key], warmup) for key in ("from", "to"))
        words = describe_schedule(before, after, entry["at_step"])
        click.echo(textwrap.fill(words, 100), err=True)


def print_position(run: Run) -> None:
    """What it has made, and from where it goes on."""
    state = RunState.of(run.folder, alive=False)
    saved = last_saved(run.folder)
    newest = f"last saved at step {saved:,}" if saved else "nothing saved yet"
    click.echo(
        f"run '{run_address(run)}': {state.step:,} of {state.steps:,} steps, {newest}", err=True
    )


def should_resume(run: Run, *, as_json: bool, extends: bool) -> bool:
    """False where it has made all its steps, which is then said. Raises RunBusy."""
    status = status_of(run.folder, run.refresh())
    name = run_address(run)
    if status in AT_WORK:
        fix = f"launch stop {name}   first" if extends else f"launch logs {name} -f"
        raise RunBusy(f"run '{name}' is {status}", fix=fix)
    if status == "imported":
        raise InputError(
            f"run '{name}' was imported: its optimizer's state is not here to go on with",
            fix=f"launch sample {name}   lets it speak",
        )
    if status == "finished" and not extends:
        click.echo(f"run '{name}' has made all its steps", err=True)
        print_end(run, as_json=as_json)
        return False
    return True
