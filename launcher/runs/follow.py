"""Following a run by its files, from any process, until it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from launcher.runs.events import Event, parse_events
from launcher.runs.folder import RunFolder
from launcher.runs.json_lines import JsonLinesTail
from launcher.runs.metric import Metric
from launcher.runs.run import Run


@dataclass(frozen=True)
class RunUpdate:
    """What a run has written since the last update."""

    metrics: list[Metric]
    events: list[Event]


class RunTail:
    """Reads what a run has written since the last call."""

    def __init__(self, folder: RunFolder) -> None:
        self._metrics = JsonLinesTail(folder.metrics)
        self._events = JsonLinesTail(folder.events)

    def read(self) -> RunUpdate:
        metrics = list(Metric.parse_all(self._metrics.read()))
        return RunUpdate(metrics, parse_events(self._events.read()))


class Follower:
    """Follows a run from its beginning; with `from_now` only what comes."""

    def __init__(self, run: Run, *, from_now: bool = False) -> None:
        self._run = run
        self._tail = RunTail(run.folder)
        if from_now:
            self._tail.read()

    def until_end(self) -> Iterator[RunUpdate]:
        """Yield updates, a few times a second, until no driver works any more.

        The last one is read after that is known, so nothing is missed.
        """
        while True:
            alive = self._run.refresh()
            yield self._tail.read()
            if not alive:
                return
            time.sleep(self._run.poll_seconds)
