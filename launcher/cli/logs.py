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
from launcher.cli.render.run_progress import (
    PLAIN_LINE_SECONDS,
    event_line,
    progress_message,
    step_line,
)
from launcher.cli.render.table import json_option
from launcher.cli.run_address import cluster_option, open_run_to_read
from launcher.errors import InputError, LaunchError
from launcher.remote.cluster_runs import RemoteRun
from launcher.runs.follow import Follower
from launcher.runs.records import Record, latest_attempts, read_records
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
    with open_run_to_read(run, cluster) as opened:
        if following:
            follow(opened)
        else:
            show(opened, as_json=as_json)


def show(run: Run, *, as_json: bool) -> None:
    alive, folder = run.refresh(), run.folder
    metrics = latest_attempts(read_records(folder.metrics))
    events = read_records(folder.events)
    if as_json:
        click.echo(json.dumps({"metrics": metrics, "events": events}))
        return
    for line in lines(metrics, events, folder.spec()["steps"]):
        click.echo(line)
    status = status_of(folder, alive if run.is_asked else None)
    if status == "interrupted":
        click.echo(f"{status}: its driver died without a word")


def lines(metrics: Sequence[Record], events: Sequence[Record], steps: int) -> list[str]:
    """`metrics`: each step once. In the order of time; of the progress of one piece of work, how
    far it came."""
    times = _times(metrics, events)
    told = [(at, step_line(record, steps)) for at, record in zip(times, metrics, strict=True)]
    for event, follower in pairwise([*events, {"kind": ""}]):
        if event["kind"] == "progress":
            same = follower["kind"] == "progress" and follower["stage"] == event["stage"]
            told += [] if same else [(event["time"], progress_message(event))]
        elif (line := _line(event)) is not None:
            told.append((event["time"], line))
    return [text for _, text in sorted(told, key=lambda each: each[0])]


def _times(metrics: Sequence[Record], events: Sequence[Record]) -> list[float]:
    """When each step was made. An older version's has no time: then that of the first step or event
    which shows that it had been made."""
    shown = _shown(metrics, events)
    times: list[float] = []
    later = math.inf
    for record, event_time in zip(reversed(metrics), reversed(shown), strict=True):
        later = record.get("time", min(later, event_time))
        times.append(later)
    return times[::-1]


def _shown(metrics: Sequence[Record], events: Sequence[Record]) -> list[float]:
    """For each step the time of the first event that comes after it: one that names it or a later
    one, or the start of another attempt."""
    reached: list[tuple[tuple[int, int], float]] = []
    starts = [event["attempt"] for event in events if event.get("stage") == "workers"]
    attempt = starts[0] - 1 if starts else max((m["attempt"] for m in metrics), default=0)
    for event in events:
        if event.get("stage") == "workers":
            attempt = event["attempt"]
        step = event.get("step", 0) - (event["kind"] == "text")  # that waits for its step's text
        reached.append(((attempt, step), event["time"]))
    times, left = [], iter([*reached, ((sys.maxsize, 0), math.inf)])
    place, time = next(left)
    for record in metrics:
        while place < (record["attempt"], record["step"]):
            place, time = next(left)
        times.append(time)
    return times


def _line(event: Record) -> str | None:
    if event["kind"] == "evaluate" and event["step"] > 0:  # the step's own line has it
        return None
    if event["kind"] == "finish":
        failure = f": {event['message']}" if "message" in event else ""
        return f"{event['status']}{failure}"
    return event_line(event)


def follow(run: Run) -> None:
    """What there is, then what comes. A step that is made again after a restart is not shown.

    Ctrl-C ends the command and nothing else. Raises RunFailed where the run failed or died,
    LaunchError where nobody can say.
    """
    run.refresh()  # a client that has seen nothing of it yet has no record here
    steps = run.folder.spec()["steps"]
    shown = 0
    if isinstance(run, RemoteRun):
        run.say = lambda text: click.echo(text, err=True)
    is_first, said_at = True, -math.inf
    for news in Follower(run).until_end():
        metrics = latest_attempts(news.metrics) if is_first else news.metrics
        new = [record for record in metrics if record["step"] > shown]
        # Of progress a line now and then; the end is told by the report.
        events = [event for event in news.events if event["kind"] not in ("finish", "progress")]
        progress = [event for event in news.events if event["kind"] == "progress"]
        if progress and time.monotonic() - said_at > PLAIN_LINE_SECONDS:
            said_at = time.monotonic()
            events.append(progress[-1])
        for line in lines(new, events, steps):
            click.echo(line)
        shown = max([shown, *(record["step"] for record in new)])
        is_first = False
    if run.folder.summary() is None and not run.is_asked:
        name = run_address(run)
        raise LaunchError(
            f"whether run '{name}' goes on is not known: its cluster could not be asked",
            fix=f"launch logs {name} -f   asks again",
        )
    print_end(run, as_json=False)
