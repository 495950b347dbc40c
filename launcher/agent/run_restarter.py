"""Runs that go on by themselves: the head's supervisor starts their drivers again.

A run that was submitted is wanted until it has a summary. Whatever took its driver (the head's
power, Ray, kill -9, out of memory), another one is started as soon as Ray is up; it finds text,
checkpoints and its turn itself. Not endlessly: STARTS in a row without a new step, and it has
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

LOOK_SECONDS = 2.0
STARTS = 5  # in a row without a new step, the first included: power comes and goes in a storm
PAUSE = Backoff(first_seconds=10.0, max_seconds=3600.0)  # before the third of these and later ones


class RunRestarter:
    """Of the cluster whose folder on the head is `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs = Jobs(folder)
        self._ray_began: float | None = None
        self._ray_starts = 0
        self._again_at: dict[str, float] = {}  # not before, of monotonic time

    def start(self) -> None:
        """Look for as long as this process lives, in a thread: Ray's dashboard may be slow."""
        threading.Thread(target=self._keep, daemon=True).start()

    def ray_is(self, *, up: bool) -> None:
        if up:
            self._ray_starts += 1
        self._ray_began = time.time() if up else None

    def wanted(self) -> list[RunFolder]:
        """What was submitted and has not ended, in the order of its turn."""
        folders = [RunFolder(path.parent) for path in self._folder.glob("runs/*/submitted.json")]
        wanted = [folder for folder in folders if folder.is_wanted]
        return sorted(wanted, key=lambda folder: folder.submission().time)

    def _keep(self) -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            with contextlib.suppress(OSError):  # a full disk takes no words either
                self._look_at_all()

    def _look_at_all(self) -> None:
        for folder in self.wanted():
            try:
                self.look_at(folder)
            except (
                DashboardError,
                LockHeld,
                OSError,
            ) as error:  # Ray is busy, a disk is full: later
                print(f"run {folder.name}: {error!r}", flush=True)
            except Exception:  # whatever one run has written, the others are kept
                traceback.print_exc()

    def look_at(self, folder: RunFolder) -> None:
        """Start, end or leave alone one wanted run.

        Raises DashboardError if Ray's dashboard does not answer, LockHeld if a client is just
        submitting the run, OSError if the disk is full.
        """
        if folder.is_locked():
            self._again_at.pop(folder.name, None)
        elif folder.stop_request.exists():
            if self._ray_began is None or not self._jobs.has_driver(folder.name):
                self._end(folder, "stopped")
        elif self._ray_began is not None and not self._lets_another_go_first(folder):
            self._start_again(folder)

    def _lets_another_go_first(self, folder: RunFolder) -> bool:
        """It waited for its turn: whoever had the hosts gets them back first."""
        last = _last_event(folder)
        if not isinstance(last, WaitEvent):
            return False
        other = RunFolder(folder.path.with_name(last.run))
        nodes = folder.spec().nodes
        has_them = any(is_held(self._folder / "slots" / f"{node.name}.lock") for node in nodes)
        return self._jobs.is_due(other) and not has_them

    def _start_again(self, folder: RunFolder) -> None:
        before = folder.submission()
        # A run that waits, for its turn or for a node, makes no step, and that is no fault of its.
        is_well = steps_made(folder) > before.step or _waits(folder)
        starts = 1 if is_well else before.starts + 1
        if self._jobs.has_driver(folder.name):
            return
        if starts > STARTS:
            self._give_up(folder)
            return
        now = time.monotonic()
        at = self._again_at.setdefault(folder.name, now + PAUSE.seconds(max(0, starts - 2)))
        if now < at:
            return
        what, message = self._why(folder)
        seconds = round(max(0.0, time.time() - _last_sign(folder)), 3)
        if self._jobs.submit_again(folder.name, starts):
            with EventLog(folder.events) as events:
                events.write(
                    RestartEvent.now(stage="driver", what=what, message=message, seconds=seconds)
                )
        del self._again_at[folder.name]

    def _why(self, folder: RunFolder) -> tuple[str, str]:
        assert self._ray_began is not None
        if _last_sign(folder) > self._ray_began:
            return "driver", "its driver died (killed, or out of memory)"
        if self._ray_starts > 1:
            return "ray", "Ray died on the head and was started again"
        return "head", "the head was off, or nothing of the cluster ran there"

    def _give_up(self, folder: RunFolder) -> None:
        message = f"it died {STARTS} times in a row without a new step"
        Failure(message=message, fix=f"see {folder.log}").write(folder.failure_file)
        self._end(folder, "failed", message=message)

    def _end(self, folder: RunFolder, status: Literal["stopped", "failed"], **details: str) -> None:
        """As its driver would."""
        summary = summarize(folder, status)
        with EventLog(folder.events) as events:
            events.write(FinishEvent.now(status=status, step=summary.steps, **details))
        summary.write(folder.summary_file)


def _last_event(folder: RunFolder) -> Event | None:
    """The last one that is not about its text, which is prepared beside all else."""
    events = [e for e in read_events(folder.events) if not isinstance(e, TextEvent)]
    return events[-1] if events else None


def _waits(folder: RunFolder) -> bool:
    last = _last_event(folder)
    return isinstance(last, WaitEvent) or (isinstance(last, FaultEvent) and last.what == "node")


def _last_sign(folder: RunFolder) -> float:
    """When the run wrote a step or an event last, or was submitted."""
    files = (folder.metrics, folder.events)
    wrote = [file.stat().st_mtime for file in files if file.exists()]
    return max(folder.submission().time, *wrote, 0.0)
