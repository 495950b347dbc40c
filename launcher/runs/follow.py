"""Following a run by its files, from any process, until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from launcher.runs.folder import RunFolder
from launcher.runs.records import Record, RecordTail

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class News:
    """What a run has written since the last look."""

    metrics: list[Record]
    events: list[Record]


class Follower:
    """Reads a run's files from their beginnings, or from now on with `from_now`."""

    def __init__(self, folder: RunFolder, *, from_now: bool = False) -> None:
        self._folder = folder
        self._metrics = RecordTail(folder.metrics)
        self._events = RecordTail(folder.events)
        if from_now:
            self._look()

    def until_end(self) -> Iterator[News]:
        """Yield news about ten times a second, until no driver holds the folder any more.

        The last look is taken after the lock is seen free, so nothing is missed.
        """
        while True:
            alive = self._folder.is_locked()
            yield self._look()
            if not alive:
                return
            time.sleep(POLL_SECONDS)

    def _look(self) -> News:
        return News(self._metrics.read(), self._events.read())
