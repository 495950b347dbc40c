"""Waiting for text that is still being prepared while a run trains on it."""

from __future__ import annotations

import time

from nanochat.dataset import PreparedData
from nanochat.observer import Observer

REPORT_SECONDS = 30.0  # between two events about waiting, if text holds a run up in every step
MAX_SILENCE_SECONDS = 5.0  # of waiting before it is an event anyway: silence looks like a hang


class TextWait:
    """Waits for rows and logs a `text` event when a wait begins and when it ends."""

    def __init__(self, data: PreparedData, observer: Observer) -> None:
        self._data = data
        self._observer = observer
        self._reported_at = -REPORT_SECONDS

    def wait_for_rows(self, rows: int, step: int) -> bool:
        """Wait until `rows` rows to train on are there, for `step`; False: a stop was asked for."""
        started = time.perf_counter()
        report_at = max(
            started, min(self._reported_at + REPORT_SECONDS, started + MAX_SILENCE_SECONDS)
        )
        reported = False

        def keep_waiting() -> bool:
            nonlocal reported
            if not reported and time.perf_counter() >= report_at:
                reported = True
                self._observer.event("text", step=step)
            return not self._observer.stop_requested()

        arrived = self._data.wait_for_rows(rows, keep_waiting)
        if reported:
            self._reported_at = time.perf_counter()
            seconds = round(self._reported_at - started, 3)
            self._observer.event("text", step=step, seconds=seconds)
        return arrived
