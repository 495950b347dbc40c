"""`launch logs RUN`: the steps of a run, each once, and what happened between them."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from itertools import pairwise

import click

from launcher.cli.attach import print_end
from launcher.cli.options import cluster_option, json_option, notify
from launcher.cli.render.run_progress import (
    PLAIN_LINE_SECONDS,
    event_line,
    progress_message,
    step_line,
)
from launcher.errors import InputError, LaunchError
from launcher.operations.run_address import open_run_to_read
from launcher.remote.cluster_runs import RemoteRun
from launcher.runs.events import (
    EvaluateEvent,
    Event,
    FinishEvent,
    ProgressEvent,
    RestartEvent,
    StartEvent,
    TextEvent,
    read_events,
)
from launcher.runs.follow import Follower
from launcher.runs.metric import Metric, latest_attempts, read_metrics
from launcher.runs.run import Run, run_address
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
            follow(opened)
        else:
            show(opened, as_json=as_json)


def show(run: Run, *, as_json: bool) -> None:
    alive, folder = run.refresh(), run.folder
    metrics = latest_attempts(read_metrics(folder.metrics))
    events = read_events(folder.events)
    if as_json:
        document = {
            "metrics": [metric.as_json() for metric in metrics],
            "events": [event.as_json() for event in events],
        }
        click.echo(json.dumps(document))
        return
    for line in lines(metrics, events, folder.spec().steps):
        click.echo(line)
    status = status_of(folder, alive if run.is_asked else None)
    if status == "interrupted":
        click.echo(f"{status}: its driver died without a word")


def lines(metrics: Sequence[Metric], events: Sequence[Event], steps: int) -> list[str]:
    """`metrics`: each step once. In the order of time; of the progress of one piece of work, how
    far it came."""
    times = _times(metrics, events)
    timed = [(at, step_line(metric, steps)) for at, metric in zip(times, metrics, strict=True)]
    for event, follower in pairwise([*events, None]):
        assert event is not None
        if isinstance(event, ProgressEvent):
            same = isinstance(follower, ProgressEvent) and follower.stage == event.stage
            timed += [] if same else [(event.time, progress_message(event))]
        elif (line := _line(event)) is not None:
            timed.append((event.time, line))
    return [text for _, text in sorted(timed, key=lambda item: item[0])]


def _times(metrics: Sequence[Metric], events: Sequence[Event]) -> list[float]:
    """When each step was made. An older version's has no time: then that of the first step or event
    which shows that it had been made."""
    shown = _shown(metrics, events)
    times: list[float] = []
    later = math.inf
    for metric, event_time in zip(reversed(metrics), reversed(shown), strict=True):
        later = min(later, event_time) if metric.time is None else metric.time
        times.append(later)
    return times[::-1]


def _shown(metrics: Sequence[Metric], events: Sequence[Event]) -> list[float]:
    """For each step the time of the first event that comes after it: one that names it or a later
    one, or the start of another attempt."""
    reached: list[tuple[tuple[int, int], float]] = []
    starts = [attempt for event in events if (attempt := _attempt_of(event)) is not None]
    attempt = starts[0] - 1 if starts else max((m.attempt for m in metrics), default=0)
    for event in events:
        if (begun := _attempt_of(event)) is not None:
            attempt = begun
        step = getattr(event, "step", None) or 0
        reached.append(((attempt, step - isinstance(event, TextEvent)), event.time))
    times, left = [], iter([*reached, ((sys.maxsize, 0), math.inf)])
    place, time = next(left)
    for metric in metrics:
        while place < (metric.attempt, metric.step):
            place, time = next(left)
        times.append(time)
    return times


def _attempt_of(event: Event) -> int | None:
    """The attempt that begins with this event, if one does."""
    if isinstance(event, StartEvent | RestartEvent) and event.stage == "workers":
        return event.attempt
    return None


def _line(event: Event) -> str | None:
    if isinstance(event, EvaluateEvent) and event.step > 0:  # the step's own line has it
        return None
    if isinstance(event, FinishEvent):
        failure = "" if event.message is None else f": {event.message}"
        return f"{event.status}{failure}"
    return event_line(event)


def follow(run: Run) -> None:
    """What there is, then what comes. A step that is made again after a restart is not shown.

    Ctrl-C ends the command and nothing else. Raises RunFailed where the run failed or died,
    LaunchError where nobody can say.
    """
    run.refresh()  # a client that has seen nothing of it yet has no record here
    steps = run.folder.spec().steps
    shown = 0
    if isinstance(run, RemoteRun):
        run.say = notify
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
        for line in lines(new, events, steps):
            click.echo(line)
        shown = max([shown, *(metric.step for metric in new)])
        is_first = False
    if run.folder.summary() is None and not run.is_asked:
        name = run_address(run)
        raise LaunchError(
            f"whether run '{name}' goes on is not known: its cluster could not be asked",
            fix=f"launch logs {name} -f   asks again",
        )
    print_end(run, as_json=False)
