"""What happened in a run: the lines of events.jsonl, one class per kind.

    {"time": 1764434321.5, "kind": "checkpoint", "step": 40, "path": "step-00000040", ...}

Every line has the time in seconds since 1970 and its kind. A kind that this version does not know,
or a line that lacks what its kind needs, is a plain `Event`: it keeps its place in the order.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from launcher.runs.json_lines import JsonLinesWriter, read_json_lines
from launcher.runs.record import Amount, Count, Record, Seconds, Timestamp


class Event(Record):
    """Base of all kinds."""

    KIND: ClassVar[str] = ""

    time: Timestamp = 0.0
    kind: str = ""

    @classmethod
    def now(cls, **details: Any) -> Event:
        """Return one that happens now."""
        return cls(time=round(time.time(), 3), kind=cls.KIND, **details)


class StartEvent(Event):
    """A stage of a start is over, or the ranks begin to train."""

    KIND = "start"
    stage: str
    """`ray`, `imports`, `data`, `hardware`, `workers` (the ranks begin) or `first_step`."""
    seconds: Seconds | None = None
    attempt: Count | None = None
    """At stage `workers`."""
    seconds_since_enter: Seconds | None = None
    """At stage `first_step`: since the user pressed Enter."""
    message: str | None = Field(default=None, validation_alias="words", serialization_alias="words")
    """At stage `data`: a sentence about the text. Written as `words`."""
    reasons: dict[str, str] = Field(default_factory=dict)
    """At stage `hardware`: what was chosen -> why."""


class RestartEvent(Event):
    """A part of a recovery from a fault is over; see `launcher.training.recovery_controller`."""

    KIND = "restart"
    stage: str
    """`driver`, `group`, `workers`, `step` or `replay`."""
    seconds: Seconds = 0.0
    attempt: Count | None = None
    planned: bool = False
    """The group before had saved and made way: no fault."""
    stages: dict[str, Seconds] = Field(default_factory=dict)
    """Seconds by stage, at stages `group` and `step`."""
    step: Count | None = None
    replays: Count | None = None
    """At stage `step`: steps that were lost and are made again."""
    steps: Count | None = None
    """At stage `replay`: steps that were made again."""
    what: str | None = None
    message: str | None = None


class FaultEvent(Event):
    """Something failed. The run may go on."""

    KIND = "fault"
    what: str
    """Which part: worker, node, hang, start, ray, text, client or checkpoint."""
    message: str
    step: Count | None = None
    attempt: Count | None = None
    rank: Count | None = None
    node: str | None = None
    frozen: bool | None = None
    """Of a hang: whether a process does not run at all."""


class WaitEvent(Event):
    """The run waits for another run that has its hosts."""

    KIND = "wait"
    run: str


class TextEvent(Event):
    """A step waits, or has waited, for text that is still being prepared; or all is prepared."""

    KIND = "text"
    step: Count | None = None
    seconds: Seconds | None = None
    """How long the step waited. None: it still waits."""
    message: str | None = Field(default=None, validation_alias="words", serialization_alias="words")
    """Written as `words`."""


class ProgressEvent(Event):
    """How far a piece of work has come before training begins."""

    KIND = "progress"
    stage: str
    done: Amount = 0
    total: Amount | None = None
    """In bytes. None: not known."""


class EvaluateEvent(Event):
    """The model was evaluated on the validation text."""

    KIND = "evaluate"
    step: Count
    val_bpb: float
    seconds: Seconds | None = None


class CheckpointEvent(Event):
    """A checkpoint was written."""

    KIND = "checkpoint"
    step: Count
    path: str | None = None
    """The name of its folder."""
    seconds: Seconds | None = None
    """From the first byte copied to the last byte on the disk."""
    stalled: Seconds | None = None
    """Seconds that training stood still for it."""


class MemoryEvent(Event):
    """A choice that memory forced."""

    KIND = "memory"
    message: str = Field(validation_alias="words", serialization_alias="words")
    """Written as `words`."""


class MeasureEvent(Event):
    """`launch measure` found something out."""

    KIND = "measure"
    message: str = Field(validation_alias="words", serialization_alias="words")
    """Written as `words`."""


class SlowEvent(Event):
    """A step took several times as long as usual."""

    KIND = "slow"
    step: Count
    seconds: Seconds
    median: Seconds
    """Seconds of the recent steps."""
    rank: Count | None = None
    """Whose computing explains at least half of the delay. None: nobody's."""
    compute: tuple[Seconds, ...] = ()
    """Seconds that each rank computed."""
    node: str | None = None


class ResumeEvent(Event):
    """Training continues from a checkpoint."""

    KIND = "resume"
    step: Count
    seconds: Seconds | None = None


class ResizeEvent(Event):
    """The run continues on other nodes than before."""

    KIND = "resize"
    nodes: tuple[str, ...]
    before: tuple[str, ...] = ()
    step: Count = 0
    why: str = ""


class StopEvent(Event):
    """The ranks stop because somebody asked for it."""

    KIND = "stop"
    step: Count


class FinishEvent(Event):
    """The run is over."""

    KIND = "finish"
    status: str
    step: Count = 0
    message: str | None = None


class ImportEvent(Event):
    """The run was made of a model from elsewhere."""

    KIND = "import"
    source: str
    step: Count


KINDS: Mapping[str, type[Event]] = {
    kind.KIND: kind
    for kind in (
        StartEvent, RestartEvent, FaultEvent, WaitEvent, TextEvent, ProgressEvent, EvaluateEvent,
        CheckpointEvent, MemoryEvent, MeasureEvent, SlowEvent, ResumeEvent, ResizeEvent, StopEvent,
        FinishEvent, ImportEvent,
    )
}  # fmt: skip


def parse_event(content: Mapping[str, Any]) -> Event:
    """Return the event of a line, a plain `Event` if its kind is unknown or something is wrong."""
    kind = KINDS.get(str(content.get("kind")), Event)
    event = kind.parse(content) or Event.parse(content)
    return event or Event(kind=str(content.get("kind")))


def parse_events(contents: Iterable[Mapping[str, Any]]) -> list[Event]:
    return [parse_event(content) for content in contents]


def read_events(path: Path) -> list[Event]:
    """Read all events of a run, in the order in which they were written."""
    return parse_events(read_json_lines(path))


class EventLog:
    """Appends events to a run's events.jsonl."""

    def __init__(self, path: Path) -> None:
        self._writer = JsonLinesWriter(path)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.__exit__(*error)

    def write(self, event: Event) -> None:
        self._writer.write(event.as_json())
