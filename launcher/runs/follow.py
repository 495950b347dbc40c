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


def follow(folder: RunFolder, *, from_now: bool = False) -> Iterator[News]:
    """Yield news about ten times a second, until no driver holds the folder any more.

    The last look is taken after the lock is seen free, so nothing is missed.
    """
    metrics, events = RecordTail(folder.metrics), RecordTail(folder.events)
    if from_now:
        metrics.read(), events.read()
    while True:
        alive = folder.is_locked()
        yield News(metrics.read(), events.read())
        if not alive:
            return
        time.sleep(POLL_SECONDS)
