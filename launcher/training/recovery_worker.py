"""Rank 0's part of what a recovery took: from the train function to the step that was lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from launcher.runs.folder import RunFolder
from launcher.runs.records import read_records


class RecoveryWorker:
    """`tell` writes an event. `reached`: the last step that an earlier attempt has made."""

    def __init__(
        self, folder: RunFolder, tell: Callable[..., None], *, attempt: int, reached: int
    ) -> None:
        self._folder = folder
        self._tell = tell
        self._attempt = attempt
        self._reached = reached
        self._began_at = time.time()
        self._loaded_at: float | None = None
        self._stepped_at: float | None = None
        self._first = 0

    def loaded(self) -> None:
        self._loaded_at = time.time()

    def step(self, step: int) -> bool:
        """To be called after each one; False: it has nothing more to say."""
        now = time.time()
        if self._stepped_at is None:
            self._stepped_at, self._first = now, step
            self._write_first_step(now, step)
        if step <= self._reached:
            return True
        if step > self._first:
            self._tell(
                "restart",
                stage="replay",
                attempt=self._attempt,
                steps=step - self._first,
                seconds=round(now - self._stepped_at, 3),
            )
        return False

    def _write_first_step(self, now: float, step: int) -> None:
        before = self._before()
        if before is None:
            return
        told_at = before["time"]
        loaded_at = self._loaded_at or self._began_at
        stages = {
            **before["stages"],
            "group": before["stages"]["group"] + self._began_at - told_at,
            "load": loaded_at - self._began_at,
            "step": now - loaded_at,
        }
        self._tell(
            "restart",
            stage="step",
            attempt=self._attempt,
            step=step,
            planned=before.get("planned", False),
            replays=max(0, self._reached - step + 1),
            seconds=round(before["seconds"] + now - told_at, 3),
            stages={name: round(seconds, 3) for name, seconds in stages.items()},
        )

    def _before(self) -> dict[str, Any] | None:
        """What the controller has written since it started this attempt; None: it was slower."""
        events = reversed(read_records(self._folder.events))
        group = next((event for event in events if event.get("stage") == "group"), None)
        return group if group and group["attempt"] == self._attempt else None


def count_attempts(folder: RunFolder) -> int:
    """How often workers have begun to train in this run."""
    return sum(event.get("stage") == "workers" for event in read_records(folder.events))
