"""How a run went, as series of figures: for plots, and for comparisons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from launcher.errors import InputError
from launcher.runs.events import EvaluateEvent, read_events
from launcher.runs.folder import RunFolder
from launcher.runs.metric import Metric, latest_attempts, read_metrics


@dataclass(frozen=True)
class RunHistory:
    """The metrics of one run as series of numbers.

    All sequences of steps have the same length, those of evaluations too.

    Hours are of training: the sum of all steps up to there, those that were lost and made again
    too; time in which nothing ran is left out.
    """

    name: str
    tokens: Sequence[int]
    hours: Sequence[float]
    loss: Sequence[float]  # nats per token
    tokens_per_second: Sequence[float]
    evaluated_tokens: Sequence[int]
    evaluated_hours: Sequence[float]
    val_bpb: Sequence[float]
    restart_hours: Sequence[float]
    replayed_spans: Sequence[tuple[float, float]]
    """Begin and end, in hours, of steps that were lost and made again."""

    @classmethod
    def of(cls, folder: RunFolder, name: str) -> RunHistory:
        """Raises InputError where the run has not made a step here. `name`: as commands take it."""
        metrics = read_metrics(folder.metrics)
        if not metrics and folder.spec().imported_from is not None:
            raise InputError(
                f"run '{name}' was imported: how it was trained is not known here",
                fix=f"its figures at the end are in: launch runs; its text: launch sample {name}",
            )
        if not metrics:
            raise InputError(f"run '{name}' has made no step yet", fix=f"launch logs {name}")
        hours = list(accumulate(metric.step_seconds / 3600 for metric in metrics))
        hours_of = {_key(metric): hour for metric, hour in zip(metrics, hours, strict=True)}
        restarts = [
            hour
            for (before, after), hour in zip(pairwise(metrics), hours, strict=False)
            if after.attempt > before.attempt
        ]
        steps = latest_attempts(metrics)
        counted = {_key(metric) for metric in steps}
        replayed_spans = [
            (hour - metric.step_seconds / 3600, hour)
            for metric, hour in zip(metrics, hours, strict=True)
            if _key(metric) not in counted
        ]
        evaluated = [
            (metric.tokens, hours_of[_key(metric)], metric.val_bpb)
            for metric in steps
            if metric.val_bpb is not None
        ]
        for event in read_events(folder.events):
            if isinstance(event, EvaluateEvent) and event.step == 0:
                evaluated.insert(0, (0, 0.0, event.val_bpb))
                break
        return cls(
            name=name,
            tokens=[metric.tokens for metric in steps],
            hours=[hours_of[_key(metric)] for metric in steps],
            loss=[metric.loss for metric in steps],
            tokens_per_second=[metric.tokens_per_second for metric in steps],
            evaluated_tokens=[tokens for tokens, _, _ in evaluated],
            evaluated_hours=[hour for _, hour, _ in evaluated],
            val_bpb=[value for _, _, value in evaluated],
            restart_hours=restarts,
            replayed_spans=_merge_spans(replayed_spans),
        )

    def scaled(self, per_hour: float) -> RunHistory:
        """With times in another unit."""
        return replace(
            self,
            hours=[per_hour * hour for hour in self.hours],
            evaluated_hours=[per_hour * hour for hour in self.evaluated_hours],
            restart_hours=[per_hour * hour for hour in self.restart_hours],
            replayed_spans=[
                (per_hour * begin, per_hour * end) for begin, end in self.replayed_spans
            ],
        )


def moving_average(values: Sequence[float], steps: int) -> list[float]:
    """The mean of each value and the `steps` - 1 before it; fewer at the start."""
    sums = [0.0, *accumulate(values)]
    firsts = [max(0, end - steps) for end in range(1, len(sums))]
    return [
        (sums[end] - sums[first]) / (end - first) for end, first in enumerate(firsts, start=1)
    ]  # fmt: skip


def _merge_spans(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that follow each other as one."""
    merged: list[tuple[float, float]] = []
    for begin, end in spans:
        if merged and math.isclose(merged[-1][1], begin, abs_tol=1e-9):
            begin = merged.pop()[0]
        merged.append((begin, end))
    return merged


def _key(metric: Metric) -> tuple[int, int]:
    return metric.step, metric.attempt
