"""`launch logs RUN`: the steps of a run, each once, and what happened between them."""

from __future__ import annotations

import json

import click

from launcher.cli.attach import report_end
from launcher.cli.output import json_option
from launcher.cli.place import cluster_option, open_run_to_read
from launcher.cli.progress import event_line, step_line
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
    if as_json:
        metrics = each_step_once(read_records(folder.metrics))
        click.echo(json.dumps({"metrics": metrics, "events": read_records(folder.events)}))
    else:
        steps = folder.spec()["steps"]
        for line in _lines(folder, steps):
            click.echo(line)


def _lines(folder: RunFolder, steps: int) -> list[str]:
    """Steps in order, each event before the first step that comes after it."""
    metrics = each_step_once(read_records(folder.metrics))
    events = read_records(folder.events)
    lines: list[tuple[float, int, str]] = []
    for record in metrics:
        lines.append((record["step"], 1, step_line(record, steps)))
    reached = 0
    for event in events:
        reached = event.get("step", reached)
        if event["kind"] != "evaluate" and (line := event_line(event)) is not None:
            lines.append((reached, 2, line))
    return [text for _, _, text in sorted(lines, key=lambda line: line[:2])]


def _follow(run: Run) -> None:
    """What there is, then what comes. A step that is made again after a restart is not shown.

    Ctrl-C ends the command and nothing else.
    """
    steps = run.folder.spec()["steps"]
    shown = 0
    if isinstance(run, RemoteRun):
        run.say = lambda text: click.echo(text, err=True)
    for news in Follower(run).until_end():
        before = [event for event in news.events if not _follows_a_step(event)]
        after = [event for event in news.events if _follows_a_step(event)]
        _echo(before)
        for record in news.metrics:
            shown = _echo_new(record, steps, shown)
        _echo(after)
    if run.folder.summary() is not None:
        report_end(run, as_json=False)


def _follows_a_step(event: Record) -> bool:
    return event["kind"] in ("checkpoint", "stop") or event.get("stage") == "first_step"


def _echo(events: list[Record]) -> None:
    for event in events:
        if event["kind"] != "evaluate" and (line := event_line(event)) is not None:
            click.echo(line)


def _echo_new(record: Record, steps: int, shown: int) -> int:
    if record["step"] > shown:
        click.echo(step_line(record, steps))
    return max(shown, record["step"])
