"""Steps that take far longer than usual, and which rank was late."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch

TIMES_THE_MEDIAN = 5.0
# Of the steps at the start of an attempt, which touch their memory first; then steps to compare
# with, before any is judged.
SETTLING_STEPS, MIN_STEPS, RECENT_STEPS = 3, 5, 50
# Above the median: steps of milliseconds are late by what else a system does.
MIN_EXCESS_SECONDS = 1.0


class ComputeClock:
    """How long this rank itself computed in a step, on the clock of the device that computes.

    The caller starts and stops it around each stretch; between stretches it waits for others.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._marks: list[Any] = []

    def start(self) -> None:
        """Begin a stretch of computing."""
        self._mark()

    def stop(self) -> None:
        """End the stretch: the rank waits for others from here on."""
        self._mark()

    def _mark(self) -> None:
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def read(self) -> float:
        """Seconds of the stretches since the last reading; the device has done all of them."""
        marks, self._marks = self._marks, []
        stretches = zip(marks[::2], marks[1::2], strict=True)
        if self._on_gpu:
            return sum(begin.elapsed_time(end) for begin, end in stretches) / 1e3
        return sum(end - begin for begin, end in stretches)


class StepTimes:
    """The last steps of a run: how long each took, and each rank of it."""

    def __init__(self) -> None:
        self._seen = 0
        self._recent: deque[tuple[float, Sequence[float]]] = deque(maxlen=RECENT_STEPS)

    def add(self, seconds: float, compute: Sequence[float]) -> dict[str, Any] | None:
        """Take a step up; what to say of it where it was slow.

        `compute`: seconds that each rank computed, in rank order. Said are `seconds`, the `median`
        of the recent steps, `compute`, and the `rank` whose computing explains at least half of
        what the step took longer; None: the ranks were waiting for what is between them.
        """
        self._seen += 1
        if self._seen <= SETTLING_STEPS:
            return None
        slow = self._check(seconds, compute)
        self._recent.append((seconds, compute))
        return slow

    def _check(self, seconds: float, compute: Sequence[float]) -> dict[str, Any] | None:
        if len(self._recent) < MIN_STEPS:
            return None
        median = statistics.median(usual for usual, _ in self._recent)
        longer = seconds - median
        if seconds < TIMES_THE_MEDIAN * median or longer < MIN_EXCESS_SECONDS:
            return None
        usual = [
            statistics.median(times) for times in zip(*(c for _, c in self._recent), strict=True)
        ]
        excess = [now - before for now, before in zip(compute, usual, strict=True)]
        largest = max(excess)
        return {
            "seconds": round(seconds, 3),
            "median": round(median, 3),
            "rank": excess.index(largest) if largest >= longer / 2 else None,
            "compute": [round(value, 3) for value in compute],
        }
