"""Watching a run from its start to its end in this terminal, and saying how it ended."""

from __future__ import annotations

import json
import shutil
import signal
from types import FrameType
from typing import Any

import click

from launcher.cli.output import count, duration
from launcher.cli.progress import RunProgress
from launcher.errors import Interrupted, RunFailed
from launcher.runs.folder import RunFolder
from launcher.runs.follow import Follower
from launcher.runs.state import RunState, status_of
from launcher.runs.submit import DriverProcess, request_stop


def run_here(folder: RunFolder, *, detach: bool, as_json: bool) -> None:
    """Start the run's driver; follow it to its end, or leave it alone with `detach`.

    Ctrl-C (or SIGTERM) saves and stops; a second one stops at once.
    """
    state = RunState.of(folder)
    follower = Follower(folder, from_now=True)
    if detach:
        DriverProcess(folder, detach=True)
        _say_detached(folder, as_json)
        return
    interrupts = _Interrupts(folder)
    with interrupts, RunProgress(state.steps, step=state.step) as progress:
        driver = interrupts.driver = DriverProcess(folder, detach=False)
        for news in follower.until_end():
            progress.show(news)
            interrupts.say(progress)
    driver.wait()
    if interrupts.count < 2 or status_of(folder) in ("finished", "stopped"):
        report_end(folder, as_json=as_json)
    if interrupts.count:
        raise Interrupted(
            f"run '{folder.name}' was stopped", fix=f"launch resume {folder.name}   goes on with it"
        )


def report_end(folder: RunFolder, *, as_json: bool) -> None:
    """Print the summary. Raises RunFailed where the run failed or died without a word."""
    summary = folder.summary()
    if summary is None:
        full = shutil.disk_usage(folder.path).free < 2**20
        raise RunFailed(
            f"the disk is full at {folder.path}"
            if full
            else f"the driver of run '{folder.name}' died without a word",
            fix=f"launch resume {folder.name}   (its log: {folder.log})",
        )
    if summary["status"] == "failed":
        failure = folder.failure() or {}
        raise RunFailed(
            f"run '{folder.name}' failed: {failure.get('message', 'see its log')}",
            fix=failure.get("fix") or f"see {folder.log}; then: launch resume {folder.name}",
        )
    if as_json:
        click.echo(json.dumps(summary))
    else:
        click.echo(summary_block(summary))


def summary_block(summary: dict[str, Any]) -> str:
    """`key  value` lines: short for a person, and one awk away for a script."""
    s = summary
    lines = [
        ("run", f"{s['run']} ({s['status']})"),
        ("steps", f"{s['steps']:,}  ({count(s['tokens'])} tokens in {duration(s['seconds'])})"),
        ("speed", f"{s['tokens_per_second']:,.0f} tok/s" if s["tokens_per_second"] else "-"),
        ("train_loss", f"{s['train_loss']:.4f} nats per token" if s["train_loss"] else "-"),
        ("val_bpb", f"{s['val_bpb']:.4f}" if s["val_bpb"] else "-"),
        ("restarts", str(s["restarts"])),
        ("checkpoint", str(s["checkpoint"] or "-")),
    ]
    text = "\n".join(f"{key:<12}{value}" for key, value in lines)
    if s["checkpoint"]:
        text += f"\n\nlaunch sample {s['run']} --prompt 'import '   lets it speak"
    return text


class _Interrupts:
    """Ctrl-C and SIGTERM while a run is followed: first save and stop, then stop at once."""

    def __init__(self, folder: RunFolder) -> None:
        self.count = 0
        self.driver: DriverProcess | None = None
        self._folder = folder
        self._said = 0

    def __enter__(self) -> None:
        self._before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            request_stop(self._folder)
        elif self.driver is not None:
            self.driver.end_now()

    def say(self, progress: RunProgress) -> None:
        if self._said < min(self.count, 2):
            self._said = self.count
            progress.say(
                "stopping after this step, with a checkpoint; Ctrl-C again stops at once"
                if self.count == 1
                else "stopping at once"
            )


def _say_detached(folder: RunFolder, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"run": folder.name, "cluster": "local"}))
        return
    click.echo(f"run '{folder.name}' goes on in the background")
    for command, words in (
        (f"launch logs {folder.name} -f", "follow it"),
        (f"launch stop {folder.name}", "save and stop it"),
    ):
        click.echo(f"  {command:<32} {words}")
