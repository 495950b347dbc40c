"""The steps and events of a run as lines, in the order of time."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise

from launcher.cli.render.run_progress import event_line, progress_message, step_line
from launcher.runs.events import (
    EvaluateEvent,
    Event,
    FinishEvent,
    ProgressEvent,
    RestartEvent,
    StartEvent,
    TextEvent,
)
from launcher.runs.metric import Metric


def log_lines(metrics: Sequence[Metric], events: Sequence[Event], steps: int) -> list[str]:
    """Return steps and events in the order of time. Of the progress of one stage, only the last.

    `metrics`: each step once.
    """
    times = _times(metrics, events)
    timed = [
        (step_time, step_line(metric, steps))
        for step_time, metric in zip(times, metrics, strict=True)
    ]
    for event, next_event in pairwise([*events, None]):
        assert event is not None
        if isinstance(event, ProgressEvent):
            same = isinstance(next_event, ProgressEvent) and next_event.stage == event.stage
            timed += [] if same else [(event.time, progress_message(event))]
        elif (line := _line(event)) is not None:
            timed.append((event.time, line))
    return [text for _, text in sorted(timed, key=lambda item: item[0])]


def _times(metrics: Sequence[Metric], events: Sequence[Event]) -> list[float]:
    """When each step was made. An older version's has no time: then that of the first step or event
    which shows that it had been made."""
    event_times = _event_times(metrics, events)
    times: list[float] = []
    next_time = math.inf
    for metric, event_time in zip(reversed(metrics), reversed(event_times), strict=True):
        next_time = min(next_time, event_time) if metric.time is None else metric.time
        times.append(next_time)
    return times[::-1]


def _event_times(metrics: Sequence[Metric], events: Sequence[Event]) -> list[float]:
    """Return for each step the time of the first event after it.

    Such an event names this step or a later one, or starts another attempt.
    """
    reached: list[tuple[tuple[int, int], float]] = []
    starts = [attempt for event in events if (attempt := _started_attempt(event)) is not None]
    attempt = starts[0] - 1 if starts else max((m.attempt for m in metrics), default=0)
    for event in events:
        if (started := _started_attempt(event)) is not None:
            attempt = started
        step = getattr(event, "step", None)  # a plain event's is whatever its line says
        step = step if isinstance(step, int) else 0
        reached.append(((attempt, step - isinstance(event, TextEvent)), event.time))
    times, remaining = [], iter([*reached, ((sys.maxsize, 0), math.inf)])
    position, time = next(remaining)
    for metric in metrics:
        while position < (metric.attempt, metric.step):
            position, time = next(remaining)
        times.append(time)
    return times


def _started_attempt(event: Event) -> int | None:
    """The attempt that begins with this event, if one does."""
    if isinstance(event, StartEvent | RestartEvent) and event.stage == "workers":
        return event.attempt
    return None


def _line(event: Event) -> str | None:
    if isinstance(event, EvaluateEvent) and event.step > 0:  # the step's own line has it
        return None
    if isinstance(event, FinishEvent):
        failure = "" if event.message is None else f": {event.message}"
        return f"{event.status}{failure}"
    return event_line(event)
