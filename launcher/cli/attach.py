"""Watching a run from its start to its end in this terminal, and saying how it ended."""

from __future__ import annotations

import json
import signal
from types import FrameType
from typing import Protocol

import click

from launcher.cli.render.bring_up import BringUpView
from launcher.cli.render.run_progress import RunProgress
from launcher.errors import Interrupted, RunFailed
from launcher.formatting import format_count, format_duration
from launcher.operations.open_cluster import OpenCluster
from launcher.remote.cluster_runs import RemoteRun
from launcher.runs.failure import Failure
from launcher.runs.folder import FULL_BYTES, RunFolder
from launcher.runs.follow import Follower
from launcher.runs.overrides import needs_new_run
from launcher.runs.run import LocalRun, Run, run_address
from launcher.runs.spec import Prediction, RunSpec
from launcher.runs.state import RunState, status_of
from launcher.runs.submit import DriverProcess
from launcher.runs.summary import Summary


class Report(Protocol):
    def __call__(self, run: Run, *, as_json: bool) -> None:
        """Print how a run ended. Raises RunFailed."""


def run_local(
    folder: RunFolder, *, detach: bool, as_json: bool, report: Report | None = None
) -> None:
    """Start the run's driver on this machine; follow it to its end, or leave it with `detach`.

    Ctrl-C (or SIGTERM) saves and stops; a second one stops at once. `report`: default: print_end.
    """
    run = LocalRun(folder)
    state = RunState.of(folder)
    follower = Follower(run, from_now=True)
    if detach:
        DriverProcess(folder, detach=True)
        print_detached(run, as_json=as_json)
        return
    interrupts = _Interrupts(run)
    with interrupts, RunProgress(state.steps, step=state.step) as progress:
        driver = interrupts.driver = DriverProcess(folder, detach=False)
        for news in follower.until_end():
            progress.show(news)
            interrupts.say(progress)
    driver.wait()
    if interrupts.count < 2 or status_of(folder) in ("finished", "stopped"):
        (report or print_end)(run, as_json=as_json)
        if interrupts.count:
            raise Interrupted("")  # the report has said it
    else:
        raise Interrupted(
            f"run '{folder.name}' was stopped", fix=f"launch resume {folder.name}   goes on with it"
        )


def follow_remote(run: RemoteRun, *, as_json: bool, report: Report | None = None) -> None:
    """Follow a cluster's run to its end. Ctrl-C leaves it alone: it goes on."""
    state = RunState.of(run.folder, alive=True)
    follower = Follower(run, from_now=True)
    try:
        with RunProgress(state.steps, step=state.step) as progress:
            run.say = progress.say
            for news in follower.until_end():
                progress.show(news)
    except KeyboardInterrupt:
        raise Interrupted(f"detached: {detached_message(run)}") from None
    (report or print_end)(run, as_json=as_json)


def submit(
    run: RemoteRun,
    cluster: OpenCluster,
    view: BringUpView,
    *,
    detach: bool,
    as_json: bool,
    report: Report | None = None,
) -> None:
    """Start a run's driver on the head; follow it, or leave it with `detach`.

    Ctrl-C leaves it alone from the moment at which it may have begun.
    """
    try:
        with cluster.stages.stage("submit"):
            run.submit()
    except KeyboardInterrupt:
        raise Interrupted(f"detached: {detached_message(run)}") from None
    click.echo(view.table(cluster.stages), err=True)
    if detach:
        print_detached(run, as_json=as_json)
    else:
        follow_remote(run, as_json=as_json, report=report)


def print_end(run: Run, *, as_json: bool) -> None:
    """Print the summary. Raises RunFailed where the run failed or died without a word."""
    summary = require_summary(run)
    if as_json:
        click.echo(json.dumps(summary.as_json()))
    else:
        click.echo(summary_block(run_address(run), summary, run.folder.spec()))


def require_summary(run: Run) -> Summary:
    """Raises RunFailed where the run failed or died without a word."""
    folder, name = run.folder, run_address(run)
    summary = folder.summary()
    if summary is None:
        full = run.free_bytes() < FULL_BYTES
        raise RunFailed(
            f"the disk of run '{name}' is full"
            if full
            else f"the driver of run '{name}' died without a word",
            fix=f"launch resume {name}   (its log: {folder.log})",
        )
    if summary.status == "failed":
        failure = folder.failure() or Failure(message="see its log")
        fix = failure.fix or f"see {folder.log}"
        if needs_new_run(fix, steps=summary.steps):
            then = f"launch recipe {summary.recipe} ...   begins a new run with that"
        else:
            then = f"launch resume {name}   goes on then"
        raise RunFailed(f"run '{name}' failed: {failure.message}", fix=f"{fix}\n{then}")
    return summary


def summary_block(name: str, summary: Summary, spec: RunSpec) -> str:
    """`key  value` lines: short for a person, and one awk away for a script."""
    took = format_duration(summary.seconds)
    lines = [
        ("run", f"{name} ({summary.status})"),
        ("steps", f"{summary.steps:,}  ({format_count(summary.tokens)} tokens in {took})"),
        ("speed", _speed(summary.tokens_per_second, spec.predicted)),
        ("train_loss", f"{summary.train_loss:.4f} nats per token" if summary.train_loss else "-"),
        ("val_bpb", f"{summary.val_bpb:.4f}" if summary.val_bpb else "-"),
        ("restarts", str(summary.restarts)),
        ("checkpoint", str(summary.checkpoint or "-")),
    ]
    text = "\n".join(f"{key:<12}{value}" for key, value in lines)
    if summary.status == "stopped":
        text += f"\n\nlaunch resume {name}   goes on with it"
    elif summary.checkpoint:
        text += f"\n\n{sample_command(name, spec)}   lets it speak"
    return text


def _speed(tokens_per_second: float | None, predicted: Prediction | None) -> str:
    """Beside what was predicted when the run was created."""
    if not tokens_per_second:
        return "-"
    words = f"{tokens_per_second:,.0f} tok/s"
    if predicted is not None and (expected := predicted.tokens_per_second.expected):
        words += f"  (predicted {expected:,.0f}: {tokens_per_second / expected - 1:+.0%})"
    return words


def sample_command(name: str, spec: RunSpec) -> str:
    """With a prompt that fits the run's text."""
    source = spec.settings["data"]["source"]
    return f"launch sample {name} --prompt '{'import' if source == 'embedded' else 'The'} '"


class _Interrupts:
    """Ctrl-C and SIGTERM while a run is followed: first save and stop, then stop at once."""

    def __init__(self, run: Run) -> None:
        self.count = 0
        self.driver: DriverProcess | None = None
        self._run = run
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
            self._run.request_stop()
        elif self.driver is not None:
            self.driver.end_now()

    def say(self, progress: RunProgress) -> None:
        if self._said < min(self.count, 2):
            self._said = self.count
            if self.count > 1:
                progress.say("stopping at once")
            elif progress.trains:
                progress.say(
                    "stopping after this step, with a checkpoint; Ctrl-C again stops at once"
                )
            else:
                progress.say("stopping; Ctrl-C again stops at once")


def print_detached(run: Run, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"run": run.folder.name, "cluster": run.cluster}))
    else:
        click.echo(detached_message(run))


def detached_message(run: Run) -> str:
    """That it goes on, and what can be done about it."""
    name = run_address(run)
    where = "in the background" if run.cluster == "local" else f"on cluster {run.cluster}"
    commands = (
        (f"launch logs {name} -f", "follow it"),
        (f"launch stop {name}", "save and stop it"),
    )
    lines = [f"  {command:<36} {words}" for command, words in commands]
    return "\n".join([f"run '{run.folder.name}' runs {where}", *lines])
