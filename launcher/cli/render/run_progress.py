"""A run as a person watches it: stages, a bar, and a line for whatever deserves one."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from launcher.formatting import format_bytes, format_duration
from launcher.runs.follow import RunUpdate
from launcher.runs.records import Record
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
        self.trains = False

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

    def show(self, news: RunUpdate) -> None:
        for event in news.events:
            self._event(event)
        if news.metrics:
            self._step(news.metrics[-1])

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False)

    def _step(self, record: Record) -> None:
        self.trains = True
        figures = f"loss {record['loss']:.3f}  {record['tokens_per_second']:,.0f} tok/s"
        self._bar.update(
            self._task, completed=record["step"], description="training", figures=figures
        )
        ends = record["step"] in (1, self._steps)
        if not self._live and (self._is_time() or ends):
            self.say(step_line(record, self._steps))

    def _is_time(self) -> bool:
        """For another line on the way."""
        if time.monotonic() - self._last_line < PLAIN_LINE_SECONDS:
            return False
        self._last_line = time.monotonic()
        return True

    def _event(self, event: Record) -> None:
        if event["kind"] == "progress":
            words = progress_message(event)
            self._bar.update(self._task, description=words)
            if not self._live and self._is_time():
                self.say(words)
            return
        if event["kind"] == "start":  # what was in progress is over
            self._bar.update(self._task, description="starting")
        if (line := event_line(event)) is not None:
            self.say(line)


def step_line(record: Record, steps: int) -> str:
    line = (
        f"step {record['step']:,}/{steps:,}  loss {record['loss']:.4f}  "
        f"{record['tokens_per_second']:,.0f} tok/s  {record['step_seconds']:.2f} s"
    )
    return line + (f"  val_bpb {record['val_bpb']:.4f}" if "val_bpb" in record else "")


def progress_message(event: Record) -> str:
    stage, done, total = event["stage"], event["done"], event.get("total")
    if not total:
        return WAITING if stage == "wait" else str(stage)
    return f"{stage} {100 * done / total:.0f}% of {format_bytes(total)}"


def event_line(event: Record) -> str | None:
    """One line for a person, or None for what only scripts want."""
    kind, seconds = event["kind"], event.get("seconds")
    took = f" ({format_duration(seconds)})" if seconds is not None else ""
    lines: dict[str, Any] = {
        "evaluate": lambda: f"step {event['step']:,}: val_bpb {event['val_bpb']:.4f}{took}",
        "checkpoint": lambda: f"step {event['step']:,}: checkpoint saved{took}",
        "fault": lambda: _fault(event),
        "restart": lambda: _restarted(event, took),
        "resume": lambda: f"went on from step {event['step']:,}{took}",
        "resize": lambda: f"trains on {', '.join(event['nodes'])} from here: {event['why']}",
        "start": lambda: _started(event, took),
        "text": lambda: event.get("words") or _waiting_for_text(event, took),
        "memory": lambda: event["words"],
        "measure": lambda: f"  measured  {event['words']}",
        "slow": lambda: _slow(event),
        "wait": lambda: f"waiting for run '{event['run']}', which has these hosts",
        "import": lambda: f"imported from {event['source']} after {event['step']:,} steps",
    }
    return lines[kind]() if kind in lines else None


def _restarted(event: Record, took: str) -> str | None:
    stage = event["stage"]
    if stage == "driver":
        return f"{event['message']}: the run goes on by itself{took.replace(')', ' without news)')}"
    if stage == "workers":
        return f"restarted{took}: attempt {event['attempt']}"
    if stage == "step":
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in event["stages"].items())
        what = "the group was changed" if event.get("planned") else "the fault"
        return f"step {event['step']:,} made {event['seconds']:.1f} s after {what} ({parts})"
    if stage == "replay":
        return f"back where it was: {event['steps']:,} steps were made again{took}"
    return None  # stage group: on the way


def _waiting_for_text(event: Record, took: str) -> str:
    return f"step {event['step']:,} {'waited' if took else 'waits'} for text{took}"


def _fault(event: Record) -> str:
    """Of a checkpoint, where it could not be written; others name what they are of."""
    if event.get("what") != "checkpoint" or not event.keys() & {"node", "rank"}:
        return f"fault: {event['message']}"
    who = event.get("node", f"rank {event.get('rank')}")
    return f"fault: {who}: {event['message']}"


def _slow(event: Record) -> str:
    seconds, median, rank = event["seconds"], event["median"], event["rank"]
    line = (
        f"step {event['step']:,} was slow: {format_duration(seconds)}, "
        f"{seconds / median:.0f} times the usual {format_duration(median)}"
    )
    if rank is None:
        return f"{line}: no rank computed that long, they waited for one another"
    who = event.get("node", f"rank {rank}")
    return f"{line}: {who} was late, it computed for {format_duration(event['compute'][rank])}"


def _started(event: Record, took: str) -> str | None:
    stage = event["stage"]
    if stage == "hardware":
        return "\n".join(f"  {key:<10}{reason}" for key, reason in event["reasons"].items())
    if stage == "data":
        return f"  {'text':<10}{event['words']}{took}"
    if stage == "first_step":
        since = format_duration(event["seconds_since_enter"])
        return f"first step {since} after Enter"
    return None
