"""Following a run by its files, from any process, until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from launcher.runs.records import Record, RecordTail
from launcher.runs.run import Run


@dataclass(frozen=True)
class RunUpdate:
    """What a run has written since the last look."""

    metrics: list[Record]
    events: list[Record]


class Follower:
    """Reads a run's files from their beginnings, or from now on with `from_now`."""

    def __init__(self, run: Run, *, from_now: bool = False) -> None:
        self._run = run
        self._metrics = RecordTail(run.folder.metrics)
        self._events = RecordTail(run.folder.events)
        if from_now:
            self._look()

    def until_end(self) -> Iterator[RunUpdate]:
        """Yield news, a few times a second, until no driver is at work any more.

        The last look is taken after that is known, so nothing is missed.
        """
        while True:
            alive = self._run.refresh()
            yield self._look()
            if not alive:
                return
            time.sleep(self._run.poll_seconds)

    def _look(self) -> RunUpdate:
        return RunUpdate(self._metrics.read(), self._events.read())
