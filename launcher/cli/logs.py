"""`launch logs RUN`: the steps of a run, each once, and what happened between them."""

from __future__ import annotations

import math
import time

import click

from launcher.cli.attach import print_end
from launcher.cli.options import cluster_option, json_option, notify
from launcher.cli.render.log_lines import log_lines
from launcher.cli.render.run_progress import PLAIN_LINE_SECONDS
from launcher.cli.render.table import print_json
from launcher.errors import InputError
from launcher.operations.run_address import open_run_to_read
from launcher.runs.events import FinishEvent, ProgressEvent, read_events
from launcher.runs.follow import Follower
from launcher.runs.metric import latest_attempts, read_metrics
from launcher.runs.run import Run
from launcher.runs.state import status_of


@click.command()
@click.argument("run")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the run ends.")
@cluster_option
@json_option
def command(run: str, following: bool, cluster: str | None, as_json: bool) -> None:
    """Show a run's steps and events; with -f until it ends."""
    if following and as_json:
        raise InputError("--json prints one document, -f never ends", fix="leave one of them out")
    with open_run_to_read(run, cluster, notify=notify) as opened:
        if following:
            follow_log(opened)
        else:
            print_log(opened, as_json=as_json)


def print_log(run: Run, *, as_json: bool) -> None:
    alive, folder = run.refresh(), run.folder
    metrics = latest_attempts(read_metrics(folder.metrics))
    events = read_events(folder.events)
    if as_json:
        document = {
            "metrics": [metric.as_json() for metric in metrics],
            "events": [event.as_json() for event in events],
        }
        print_json(document, indent=None)
        return
    for line in log_lines(metrics, events, folder.spec().steps):
        click.echo(line)
    status = status_of(folder, alive if run.is_live else None)
    if status == "interrupted":
        click.echo(f"{status}: its driver died without a word")


def follow_log(run: Run) -> None:
    """What there is, then what comes. A step that is made again after a restart is not shown.

    Ctrl-C ends the command and nothing else. Raises RunFailed where the run failed or died,
    LaunchError where nobody can say.
    """
    run.refresh()  # a client that has seen nothing of it yet has no record here
    steps = run.folder.spec().steps
    shown = 0
    run.notify = notify
    is_first, shown_at = True, -math.inf
    for update in Follower(run).until_end():
        metrics = latest_attempts(update.metrics) if is_first else update.metrics
        new = [metric for metric in metrics if metric.step > shown]
        # Of progress a line now and then; the end is told by the report.
        progress = [event for event in update.events if isinstance(event, ProgressEvent)]
        events = [e for e in update.events if not isinstance(e, FinishEvent | ProgressEvent)]
        if progress and time.monotonic() - shown_at > PLAIN_LINE_SECONDS:
            shown_at = time.monotonic()
            events.append(progress[-1])
        for line in log_lines(new, events, steps):
            click.echo(line)
        shown = max([shown, *(metric.step for metric in new)])
        is_first = False
    print_end(run, as_json=False)
