"""Watching a run from its start to its end in this terminal, and saying how it ended."""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import click

from launcher.cli.render.run_end import detached_message, summary_block
from launcher.cli.render.run_progress import RunProgress
from launcher.cli.render.table import print_json
from launcher.errors import Interrupted
from launcher.operations.await_run import require_summary
from launcher.runs.driver_process import DriverProcess
from launcher.runs.folder import RunFolder
from launcher.runs.follow import Follower
from launcher.runs.run import LocalRun, Run, run_address
from launcher.runs.state import RunState, status_of

if TYPE_CHECKING:  # paramiko: 0.2 s, which `stop` and `logs` do without
    from launcher.cli.render.bring_up import BringUpView
    from launcher.operations.open_cluster import OpenCluster
    from launcher.remote.cluster_runs import RemoteRun


class EndReporter(Protocol):
    def __call__(self, run: Run, *, as_json: bool) -> None:
        """Print how a run ended. Raises RunFailed."""


def start_local_run(
    folder: RunFolder, *, detach: bool, as_json: bool, report: EndReporter | None = None
) -> None:
    """Start the run's driver on this machine; follow it to its end, or leave it with `detach`.

    Ctrl-C (or SIGTERM) saves and stops; a second one stops at once. `report` is print_end unless
    given.
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
        for update in follower.until_end():
            progress.show(update)
            interrupts.notify(progress)
    driver.wait()
    if interrupts.count < 2 or status_of(folder) in ("finished", "stopped"):
        (report or print_end)(run, as_json=as_json)
        if interrupts.count:
            raise Interrupted("")  # the report has said it
    else:
        raise Interrupted(
            f"run '{folder.name}' was stopped", fix=f"launch resume {folder.name}   goes on with it"
        )


def follow_remote(run: RemoteRun, *, as_json: bool, report: EndReporter | None = None) -> None:
    """Follow a cluster's run to its end. Ctrl-C leaves it alone: it goes on."""
    state = RunState.of(run.folder, alive=True)
    follower = Follower(run, from_now=True)
    try:
        with RunProgress(state.steps, step=state.step) as progress:
            run.notify = progress.notify
            for update in follower.until_end():
                progress.show(update)
    except KeyboardInterrupt:
        raise Interrupted(f"detached: {detached_message(run)}") from None
    (report or print_end)(run, as_json=as_json)


def submit_cluster_run(
    run: RemoteRun,
    cluster: OpenCluster,
    view: BringUpView,
    *,
    detach: bool,
    as_json: bool,
    report: EndReporter | None = None,
) -> None:
    """Start a run's driver on the head; follow it, or leave it with `detach`.

    Ctrl-C leaves it alone from the moment at which it may have begun.
    """
    try:
        with cluster.stages.measure("submit"):
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
        print_json(summary.as_json(), indent=None)
    else:
        click.echo(summary_block(run_address(run), summary, run.folder.spec()))


class _Interrupts:
    """Ctrl-C and SIGTERM while a run is followed: first save and stop, then stop at once."""

    def __init__(self, run: Run) -> None:
        self.count = 0
        self.driver: DriverProcess | None = None
        self._run = run
        self._notified_count = 0

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
            self.driver.terminate()

    def notify(self, progress: RunProgress) -> None:
        if self._notified_count < min(self.count, 2):
            self._notified_count = self.count
            if self.count > 1:
                progress.notify("stopping at once")
            elif progress.is_training:
                progress.notify(
                    "stopping after this step, with a checkpoint; Ctrl-C again stops at once"
                )
            else:
                progress.notify("stopping; Ctrl-C again stops at once")


def print_detached(run: Run, *, as_json: bool) -> None:
    if as_json:
        print_json({"run": run.folder.name, "cluster": run.cluster}, indent=None)
    else:
        click.echo(detached_message(run))
