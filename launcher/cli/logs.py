"""`launch logs RUN`: the steps of a run, each once, and what happened between them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Sequence

import click

from launcher.cli.attach import report_end
from launcher.cli.output import json_option
from launcher.cli.place import cluster_option, open_run_to_read
from launcher.cli.progress import PLAIN_LINE_SECONDS, event_line, progress_words, step_line
from launcher.errors import InputError
from launcher.runs.folder import RunFolder
from launcher.runs.follow import Follower
from launcher.runs.records import Record, each_step_once, read_records
from launcher.runs.remote import RemoteRun
from launcher.runs.run import Run


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
        opened.refresh()
        if following:
            _follow(opened)
        else:
            _show(opened.folder, as_json=as_json)


def _show(folder: RunFolder, *, as_json: bool) -> None:
    metrics = each_step_once(read_records(folder.metrics))
    events = read_records(folder.events)
    if as_json:
        click.echo(json.dumps({"metrics": metrics, "events": events}))
    else:
        for line in lines(metrics, events, folder.spec()["steps"]):
            click.echo(line)


def lines(metrics: Iterable[Record], events: Sequence[Record], steps: int) -> list[str]:
    """`metrics`: each step once. Steps in order, each event before the first step that comes after
    it; of the progress of one piece of work, how far it came."""
    placed = [(record["step"], 1, step_line(record, steps)) for record in metrics]
    for event, follower, step in zip(
        events, [*events[1:], {"kind": "", "stage": ""}], _places(events), strict=True
    ):
        is_last = follower["kind"] != "progress" or follower["stage"] != event.get("stage")
        if event["kind"] == "progress" and is_last:
            placed.append((step, 2, progress_words(event)))
        elif (line := _line(event)) is not None:
            placed.append((step, 2, line))
    return [text for _, _, text in sorted(placed, key=lambda each: each[:2])]


def _places(events: Sequence[Record]) -> list[float]:
    """The step after which each event stands: what happened after a step that was made again stands
    before that."""
    reached, places = 0, []
    for event in events:
        reached = event.get("step", reached)
        if event["kind"] == "text" and "step" in event:  # of the step to come
            reached -= 1
        places.append(reached)
    capped, cap = [], math.inf
    for event, place in zip(reversed(events), reversed(places), strict=True):
        if event["kind"] == "resume":
            cap = min(cap, event["step"])
        capped.append(min(place, cap))
    return capped[::-1]


def _line(event: Record) -> str | None:
    if event["kind"] == "evaluate" and event["step"] > 0:  # the step's own line has it
        return None
    if event["kind"] == "finish":
        failure = f": {event['message']}" if "message" in event else ""
        return f"{event['status']}{failure}"
    return event_line(event)


def _follow(run: Run) -> None:
    """What there is, then what comes. A step that is made again after a restart is not shown.

    Ctrl-C ends the command and nothing else.
    """
    steps = run.folder.spec()["steps"]
    shown = 0
    if isinstance(run, RemoteRun):
        run.say = lambda text: click.echo(text, err=True)
    told = _Teller()
    for news in Follower(run).until_end():
        for event in news.events:
            if not _follows_a_step(event):
                told.event(event)
        for record in news.metrics:
            if record["step"] > shown:
                shown = record["step"]
                click.echo(step_line(record, steps))
        for event in news.events:
            if _follows_a_step(event) and event["kind"] != "finish":  # the report says it
                told.event(event)
    if run.folder.summary() is not None:
        report_end(run, as_json=False)


def _follows_a_step(event: Record) -> bool:
    return event["kind"] in ("checkpoint", "stop", "finish") or event.get("stage") == "first_step"


class _Teller:
    """Events as they come; of progress a line now and then."""

    def __init__(self) -> None:
        self._progress_at = -math.inf

    def event(self, event: Record) -> None:
        if event["kind"] == "progress":
            if time.monotonic() - self._progress_at > PLAIN_LINE_SECONDS:
                self._progress_at = time.monotonic()
                click.echo(progress_words(event))
        elif (line := _line(event)) is not None:
            click.echo(line)
