"""Runs that go on by themselves: the head's supervisor starts their drivers again.

A run that was submitted is wanted until it has a summary. Whatever took its driver (the head's
power, Ray, kill -9, out of memory), another one is started as soon as Ray is up; it finds text,
checkpoints and its turn itself. Not endlessly: MAX_STARTS in a row without a new step, and it has
failed. A run that was asked to stop meanwhile is stopped.
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from pathlib import Path
from typing import Literal

from launcher.agent.jobs import DashboardError, Jobs, steps_made
from launcher.runs.events import (
    Event,
    EventLog,
    FaultEvent,
    FinishEvent,
    RestartEvent,
    TextEvent,
    WaitEvent,
    read_events,
)
from launcher.runs.failure import Failure
from launcher.runs.folder import RunFolder
from launcher.runs.state import summarize
from nanochat.backoff import Backoff
from nanochat.lock import LockHeld, is_held

POLL_SECONDS = 2.0
MAX_STARTS = 5  # in a row without a new step, the first included: power comes and goes in a storm
# Before the third start in a row without a new step, and later ones.
RESTART_BACKOFF = Backoff(first_seconds=10.0, max_seconds=3600.0)


class RunRestarter:
    """Restarter of the drivers of one cluster. `folder`: the cluster's folder on the head."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs = Jobs(folder)
        self._ray_up_since: float | None = None
        self._ray_starts = 0
        self._retry_at: dict[str, float] = {}  # not before, of monotonic time

    def start(self) -> None:
        """Look for as long as this process lives, in a thread: Ray's dashboard may be slow."""
        threading.Thread(target=self._poll, daemon=True).start()

    def set_ray_state(self, *, up: bool) -> None:
        if up:
            self._ray_starts += 1
        self._ray_up_since = time.time() if up else None

    def unfinished_runs(self) -> list[RunFolder]:
        """What was submitted and has not ended, in the order of its turn."""
        folders = [RunFolder(path.parent) for path in self._folder.glob("runs/*/submitted.json")]
        unfinished = [folder for folder in folders if folder.needs_driver]
        return sorted(unfinished, key=lambda folder: folder.submission().time)

    def _poll(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            with contextlib.suppress(OSError):  # a full disk takes no words either
                self._check_all()

    def _check_all(self) -> None:
        for folder in self.unfinished_runs():
            try:
                self.check_run(folder)
            except (DashboardError, LockHeld, OSError) as error:
                # Ray is busy or a disk is full: the next poll tries again.
                print(f"run {folder.name}: {error!r}", flush=True)
            except Exception:  # whatever one run has written, the others are kept
                traceback.print_exc()

    def check_run(self, folder: RunFolder) -> None:
        """Start, end or leave alone one wanted run.

        Raises DashboardError if Ray's dashboard does not answer, LockHeld if a client is just
        submitting the run, OSError if the disk is full.
        """
        if folder.is_locked():
            self._retry_at.pop(folder.name, None)
        elif folder.stop_request.exists():
            if self._ray_up_since is None or not self._jobs.has_driver(folder.name):
                self._finish(folder, "stopped")
        elif self._ray_up_since is not None and not self._must_yield_to_other_run(folder):
            self._restart(folder)

    def _must_yield_to_other_run(self, folder: RunFolder) -> bool:
        """It waited for its turn: whoever had the hosts gets them back first."""
        last = _last_event(folder)
        if not isinstance(last, WaitEvent):
            return False
        blocking_run = RunFolder(folder.path.with_name(last.run))
        locks = [self._folder / "slots" / f"{node.name}.lock" for node in folder.spec().nodes]
        hosts_are_held = any(is_held(lock) for lock in locks)
        return self._jobs.is_restart_due(blocking_run) and not hosts_are_held

    def _restart(self, folder: RunFolder) -> None:
        submission = folder.submission()
        # A run that waits, for its turn or for a node, makes no step, and that is no fault of its.
        made_progress = steps_made(folder) > submission.step or _is_waiting(folder)
        starts = 1 if made_progress else submission.starts + 1
        if self._jobs.has_driver(folder.name):
            return
        if starts > MAX_STARTS:
            self._fail(folder)
            return
        now = time.monotonic()
        pause = RESTART_BACKOFF.seconds(max(0, starts - 2))
        retry_at = self._retry_at.setdefault(folder.name, now + pause)
        if now < retry_at:
            return
        cause, message = self._restart_cause(folder)
        seconds = round(max(0.0, time.time() - _last_activity(folder)), 3)
        if self._jobs.resubmit(folder.name, starts):
            with EventLog(folder.events) as events:
                events.write(
                    RestartEvent.now(stage="driver", what=cause, message=message, seconds=seconds)
                )
        del self._retry_at[folder.name]

    def _restart_cause(self, folder: RunFolder) -> tuple[str, str]:
        assert self._ray_up_since is not None
        if _last_activity(folder) > self._ray_up_since:
            return "driver", "its driver died (killed, or out of memory)"
        if self._ray_starts > 1:
            return "ray", "Ray died on the head and was started again"
        return "head", "the head was off, or nothing of the cluster ran there"

    def _fail(self, folder: RunFolder) -> None:
        message = f"it died {MAX_STARTS} times in a row without a new step"
        Failure(message=message, fix=f"see {folder.log}").write(folder.failure_file)
        self._finish(folder, "failed", message=message)

    def _finish(
        self, folder: RunFolder, status: Literal["stopped", "failed"], **details: str
    ) -> None:
        """End the run as its driver would: write the event and the summary."""
        summary = summarize(folder, status)
        with EventLog(folder.events) as events:
            events.write(FinishEvent.now(status=status, step=summary.steps, **details))
        summary.write(folder.summary_file)


def _last_event(folder: RunFolder) -> Event | None:
    """The last one that is not about its text, which is prepared beside all else."""
    events = [e for e in read_events(folder.events) if not isinstance(e, TextEvent)]
    return events[-1] if events else None


def _is_waiting(folder: RunFolder) -> bool:
    last = _last_event(folder)
    return isinstance(last, WaitEvent) or (isinstance(last, FaultEvent) and last.what == "node")


def _last_activity(folder: RunFolder) -> float:
    """When the run wrote a step or an event last, or was submitted."""
    files = (folder.metrics, folder.events)
    modified_times = [file.stat().st_mtime for file in files if file.exists()]
    return max(folder.submission().time, *modified_times, 0.0)
