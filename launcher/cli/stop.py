"""`launch stop RUN`: save and stop."""

from __future__ import annotations

import click

from launcher.cli.attach import report_end
from launcher.cli.output import json_option
from launcher.cli.progress import RunProgress
from launcher.runs.folder import find_run
from launcher.runs.follow import Follower
from launcher.runs.state import RunState, status_of
from launcher.runs.submit import request_stop


@click.command()
@click.argument("run")
@json_option
def command(run: str, as_json: bool) -> None:
    """Save a checkpoint and stop a run."""
    folder = find_run(run)
    if folder.is_locked():
        state = RunState.of(folder)
        follower = Follower(folder, from_now=True)
        request_stop(folder)
        with RunProgress(state.steps, step=state.step) as progress:
            progress.say(f"stopping '{folder.name}' after its current step, with a checkpoint")
            for news in follower.until_end():
                progress.show(news)
    elif not as_json:
        click.echo(f"run '{folder.name}' is not running: it is {status_of(folder)}", err=True)
    report_end(folder, as_json=as_json)
