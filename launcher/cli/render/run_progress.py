"""A run as a person watches it: stages, a bar, and a line for whatever deserves one."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from launcher.errors import hosts_in_use
from launcher.formatting import format_bytes, format_duration
from launcher.runs.events import (
    CheckpointEvent,
    EvaluateEvent,
    Event,
    FaultEvent,
    ImportEvent,
    MeasureEvent,
    MemoryEvent,
    ProgressEvent,
    ResizeEvent,
    RestartEvent,
    ResumeEvent,
    SlowEvent,
    StartEvent,
    TextEvent,
    WaitEvent,
)
from launcher.runs.follow import RunUpdate
from launcher.runs.metric import Metric
from launcher.ssh import prompts

WAITING = "another process prepares the same text: waiting for it"
PLAIN_LINE_SECONDS = 10.0  # between lines on the way where there is no terminal


class RunProgress:
    """Prints to stderr: a live bar on a terminal, plain lines elsewhere."""

    def __init__(self, steps: int, *, step: int = 0) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._steps = steps
        self._live = self._console.is_terminal
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task("starting", total=steps, completed=step, figures="")
        self._last_line = time.monotonic()
        self.is_training = False

    def __enter__(self) -> RunProgress:
        self._bar.start()
        if self._live:
            prompts.add_screen(self._bar)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        prompts.remove_screen(self._bar)
        self._bar.stop()

    def show(self, update: RunUpdate) -> None:
        for event in update.events:
            self._show_event(event)
        if update.metrics:
            self._show_step(update.metrics[-1])

    def notify(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)

    def _show_step(self, metric: Metric) -> None:
        self.is_training = True
        figures = f"loss {metric.loss:.3f}  {metric.tokens_per_second:,.0f} tok/s"
        self._bar.update(self._task, completed=metric.step, description="training", figures=figures)
        ends = metric.step in (1, self._steps)
        if not self._live and (self._is_line_due() or ends):
            self.notify(step_line(metric, self._steps))

    def _is_line_due(self) -> bool:
        """For another line on the way."""
        if time.monotonic() - self._last_line < PLAIN_LINE_SECONDS:
            return False
        self._last_line = time.monotonic()
        return True

    def _show_event(self, event: Event) -> None:
        if isinstance(event, ProgressEvent):
            message = progress_message(event)
            self._bar.update(self._task, description=message)
            if not self._live and self._is_line_due():
                self.notify(message)
            return
        if isinstance(event, StartEvent):  # what was in progress is over
            self._bar.update(self._task, description="starting")
        if (line := event_line(event)) is not None:
            self.notify(line)


def step_line(metric: Metric, steps: int) -> str:
    line = (
        f"step {metric.step:,}/{steps:,}  loss {metric.loss:.4f}  "
        f"{metric.tokens_per_second:,.0f} tok/s  {metric.step_seconds:.2f} s"
    )
    return line if metric.val_bpb is None else f"{line}  val_bpb {metric.val_bpb:.4f}"


def progress_message(event: ProgressEvent) -> str:
    if not event.total:
        return WAITING if event.stage == "wait" else event.stage
    return f"{event.stage} {100 * event.done / event.total:.0f}% of {format_bytes(event.total)}"


def event_line(event: Event) -> str | None:
    """One line for a person, or None for what only scripts want."""
    match event:
        case EvaluateEvent():
            return f"step {event.step:,}: val_bpb {event.val_bpb:.4f}{_took(event.seconds)}"
        case CheckpointEvent():
            return f"step {event.step:,}: checkpoint saved{_took(event.seconds)}"
        case FaultEvent():
            return _fault(event)
        case RestartEvent():
            return _restarted(event)
        case ResumeEvent():
            return f"went on from step {event.step:,}{_took(event.seconds)}"
        case ResizeEvent():
            return f"trains on {', '.join(event.nodes)} from here: {event.why}"
        case StartEvent():
            return _started(event)
        case TextEvent():
            return event.message or _waiting_for_text(event)
        case MemoryEvent():
            return event.message
        case MeasureEvent():
            return f"  measured  {event.message}"
        case SlowEvent():
            return _slow(event)
        case WaitEvent():
            return f"waiting: {hosts_in_use(event.run)}"
        case ImportEvent():
            return f"imported from {event.source} after {event.step:,} steps"
    return None


def _took(seconds: float | None) -> str:
    return "" if seconds is None else f" ({format_duration(seconds)})"


def _restarted(event: RestartEvent) -> str | None:
    took = _took(event.seconds)
    match event.stage:
        case "driver":
            return (
                f"{event.message}: the run goes on by itself{took.replace(')', ' without news)')}"
            )
        case "workers":
            return f"restarted{took}: attempt {event.attempt}"
        case "step":
            parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in event.stages.items())
            what = "the group was changed" if event.planned else "the fault"
            return f"step {event.step or 0:,} made {event.seconds:.1f} s after {what} ({parts})"
        case "replay":
            return f"back where it was: {event.steps or 0:,} steps were made again{took}"
    return None  # stage group: on the way


def _waiting_for_text(event: TextEvent) -> str:
    verb = "waits" if event.seconds is None else "waited"
    return f"step {event.step or 0:,} {verb} for text{_took(event.seconds)}"


def _fault(event: FaultEvent) -> str:
    """Name who could not write a checkpoint; other faults name what they are about."""
    if event.what == "checkpoint" and (event.node is not None or event.rank is not None):
        who = f"rank {event.rank}" if event.node is None else event.node
        return f"fault: {who}: {event.message}"
    return f"fault: {event.message}"


def _slow(event: SlowEvent) -> str:
    line = f"step {event.step:,} was slow: {format_duration(event.seconds)}"
    if event.median:
        times = event.seconds / event.median
        line += f", {times:.0f} times the usual {format_duration(event.median)}"
    if event.rank is None or event.rank >= len(event.compute):
        return f"{line}: no rank computed that long, they waited for one another"
    who = f"rank {event.rank}" if event.node is None else event.node
    computed = format_duration(event.compute[event.rank])
    return f"{line}: {who} was late, it computed for {computed}"


def _started(event: StartEvent) -> str | None:
    match event.stage:
        case "hardware":
            return "\n".join(f"  {key:<10}{reason}" for key, reason in event.reasons.items())
        case "data":
            return f"  {'text':<10}{event.message}{_took(event.seconds)}"
        case "first_step":
            since = format_duration(event.seconds_since_enter or 0.0)
            return f"first step {since} after Enter"
    return None
