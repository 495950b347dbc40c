"""Rank 0's part of what a recovery took: from the train function to the step that was lost."""

from __future__ import annotations

import time
from collections.abc import Callable

from launcher.runs.events import Event, RestartEvent, read_events
from launcher.runs.folder import RunFolder


class RecoveryWorker:
    """`write` writes an event. `reached`: the last step that an earlier attempt has made."""

    def __init__(
        self, folder: RunFolder, write: Callable[[Event], None], *, attempt: int, reached: int
    ) -> None:
        self._folder = folder
        self._write = write
        self._attempt = attempt
        self._reached = reached
        self._started_at = time.time()
        self._loaded_at: float | None = None
        self._first_step_at: float | None = None
        self._first_step = 0

    def loaded(self) -> None:
        self._loaded_at = time.time()

    def step(self, step: int) -> bool:
        """To be called after each one; False: it has nothing more to say."""
        now = time.time()
        if self._first_step_at is None:
            self._first_step_at, self._first_step = now, step
            self._write_first_step(now, step)
        if step <= self._reached:
            return True
        if step > self._first_step:
            self._write(
                RestartEvent.now(
                    stage="replay",
                    attempt=self._attempt,
                    steps=step - self._first_step,
                    seconds=round(now - self._first_step_at, 3),
                )
            )
        return False

    def _write_first_step(self, now: float, step: int) -> None:
        group = self._group_restart()
        if group is None:
            return
        loaded_at = self._loaded_at or self._started_at
        stages = {
            **group.stages,
            "group": group.stages["group"] + self._started_at - group.time,
            "load": loaded_at - self._started_at,
            "step": now - loaded_at,
        }
        self._write(
            RestartEvent.now(
                stage="step",
                attempt=self._attempt,
                step=step,
                planned=group.planned,
                replays=max(0, self._reached - step + 1),
                seconds=round(group.seconds + now - group.time, 3),
                stages={name: round(seconds, 3) for name, seconds in stages.items()},
            )
        )

    def _group_restart(self) -> RestartEvent | None:
        """What the controller wrote when it started this attempt; None if it was slower."""
        for event in reversed(read_events(self._folder.events)):
            if isinstance(event, RestartEvent) and event.stage == "group":
                return event if event.attempt == self._attempt else None
        return None
