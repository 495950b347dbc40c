"""`launch resume RUN`: go on from the newest whole checkpoint."""

from __future__ import annotations

import click

from launcher.cli.attach import (
    follow_remote,
    print_detached,
    print_end,
    start_local_run,
    submit_cluster_run,
)
from launcher.cli.options import cluster_option, json_option, notify
from launcher.cli.render.bring_up import BringUpView
from launcher.errors import InputError
from launcher.operations.resume_run import prepare_local_resume, resume_cluster_run
from launcher.operations.run_address import open_run, resolve_run
from launcher.runs.overrides import CHANGEABLE_KEYS
from launcher.runs.run import Run, run_address

EXTEND_HELP = (
    "So many steps more than it was to make: --extend 500 makes 1,500 of 1,000. What the learning "
    "rate does then is said first."
)
WAIT_HELP = "Until the hosts of its cluster answer, however long that takes; Ctrl-C ends it."
SET_HELP = f"Go on with another one of: {', '.join(CHANGEABLE_KEYS)}."


@click.command()
@click.argument("run")
@cluster_option
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=SET_HELP)
@click.option(
    "--extend", type=click.IntRange(min=1), metavar="STEPS", help=EXTEND_HELP,
)  # fmt: skip
@click.option("--wait", "wait", is_flag=True, help=WAIT_HELP)
@click.option("--detach", is_flag=True, help="Leave it in the background.")
@json_option
def command(
    run: str,
    cluster: str | None,
    settings: tuple[str, ...],
    extend: int | None,
    wait: bool,
    detach: bool,
    as_json: bool,
) -> None:
    """Go on with a run that was stopped, failed or died; with --extend also with a finished one."""
    cluster_name, name = resolve_run(run, cluster)
    if cluster_name != "local":
        _resume_on_cluster(
            cluster_name, name, settings, extend, wait, detach=detach, as_json=as_json
        )
        return
    if wait:
        raise InputError("--wait: this machine is no cluster to wait for", fix="leave it out")
    with open_run(name, "local") as opened:
        if prepare_local_resume(opened, settings, extend, command="launch resume", notify=notify):
            start_local_run(opened.folder, detach=detach, as_json=as_json)
        else:
            print_finished(opened, as_json=as_json)


def _resume_on_cluster(
    cluster: str,
    name: str,
    settings: tuple[str, ...],
    extend: int | None,
    wait: bool,
    *,
    detach: bool,
    as_json: bool,
) -> None:
    view = BringUpView()
    with resume_cluster_run(
        cluster, name, settings, extend, waits=wait, observer=view, notify=notify
    ) as resume:
        run = resume.run
        if resume.cluster is None:
            notify(f"run '{run_address(run)}' has gone on by itself")
            if detach:
                print_detached(run, as_json=as_json)
            else:
                follow_remote(run, as_json=as_json)
        elif resume.is_finished:
            print_finished(run, as_json=as_json)
        else:
            submit_cluster_run(run, resume.cluster, view, detach=detach, as_json=as_json)


def print_finished(run: Run, *, as_json: bool) -> None:
    notify(f"run '{run_address(run)}' has made all its steps")
    print_end(run, as_json=as_json)
