"""One optimizer step of a run: a line of metrics.jsonl."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from launcher.runs.json_lines import read_json_lines, read_last_json_lines
from launcher.runs.record import Count, Record, Seconds, Timestamp


class Metric(Record):
    """What one step reached and took."""

    step: Count
    attempt: Count = 0
    """Which start of the ranks made it. A step made again after a fault has several lines."""
    tokens: Count = 0
    """Tokens trained on up to and with this step."""
    loss: float
    """Mean of the step, nats per token."""
    lr: float | None = None
    """Learning rate as a part of its peak."""
    step_seconds: Seconds = 0.0
    tokens_per_second: float = 0.0
    wire_bytes: Count | None = None
    """Bytes that rank 0 sent to other ranks."""
    val_bpb: float | None = None
    """Validation bits per byte, if the run was evaluated after this step."""
    time: Timestamp | None = None
    """When it ended, in seconds since 1970. Early versions did not write it."""


def read_metrics(path: Path) -> list[Metric]:
    """Read every attempt of every step, in the order in which they were made."""
    return list(Metric.parse_all(read_json_lines(path)))


def read_last_metrics(path: Path, max_bytes: int) -> list[Metric]:
    """Read the steps within the last `max_bytes` of the file."""
    return list(Metric.parse_all(read_last_json_lines(path, max_bytes)))


def latest_attempts(metrics: Iterable[Metric]) -> list[Metric]:
    """Keep one metric per step, that of the highest attempt, in the order of steps.

    Steps beyond the last line were lost with an earlier attempt and have not been made again.
    """
    latest: dict[int, Metric] = {}
    reached = 0
    for metric in metrics:
        reached = metric.step
        previous = latest.get(metric.step)
        if previous is None or metric.attempt >= previous.attempt:
            latest[metric.step] = metric
    return [latest[step] for step in sorted(latest) if step <= reached]
