"""Calibration: by how much steps took longer than they were predicted to.

The samples come from the probe of `launch measure` and from the folders of runs of at least
MIN_STEPS steps, if they were on the machines as they were measured.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from launcher.config.recipe import Recipe
from launcher.errors import InputError
from launcher.planner.estimate import estimate_run
from launcher.planner.hardware import Hardware
from launcher.planner.measurement import Measurement
from launcher.runs.folder import RunFolder, all_mirrors, all_runs
from launcher.runs.metric import Metric, latest_attempts, read_last_metrics
from launcher.runs.spec import RunSpec
from nanochat.batch_split import largest_micro_batch
from nanochat.sizes import ModelConfig

MIN_STEPS, SETTLING_STEPS = 8, 3
NEWEST_RUNS, NEWEST_BYTES = 20, 200_000  # of each run some 400 steps
# A larger factor means that the machines were busy with something else, or that they are not
# those of the estimate.
MAX_FACTOR = {"measured": 2.0, "estimate": 20.0}
# A step that waits for the network for a larger part of its time is no sample of computing.
MAX_WAITING = 0.3
# With measured hosts, a step that waits for a larger part is no sample for other steps: at 18% (d4
# on two hosts at 1 Gbit/s) the error of the network would make other sizes 11 to 16% too slow.
MAX_WAITING_FOR_OTHERS = {"measured": 0.1, "estimate": MAX_WAITING}


@dataclass(frozen=True)
class Correction:
    """A factor on the predicted compute time."""

    factor: float
    same_depth: bool
    """Whether a training of the recipe's depth gave it."""
    source: str
    """The training that gave it, for people; empty if there was none."""


@dataclass(frozen=True)
class _Sample:
    """One calibration sample: log(actual / predicted compute time) of a training."""

    model: ModelConfig
    tokens_per_step: int
    log_factor: float
    applies_to_others: bool
    """Whether it applies to other models and batch sizes too."""
    source: str

    def is_same_step(self, recipe: Recipe) -> bool:
        return self.model == recipe.model and self.tokens_per_step == recipe.tokens_per_step

    def depth_distance(self, recipe: Recipe) -> float:
        return abs(math.log(self.model.depth / recipe.depth))


class Calibration:
    """`runs`: finished or stopped ones, the newest last."""

    def __init__(self, runs: Sequence[RunFolder]) -> None:
        self._runs = runs
        self._samples: dict[str, list[_Sample]] = {}

    def correction_for(
        self, hardware: Hardware, recipe: Recipe, *, compute_only: bool = False
    ) -> Correction:
        """Return the correction of the depths nearest to the recipe's. `compute_only`: leave out
        samples that include the network between the hosts."""
        samples = [
            sample
            for sample in self._samples_of(hardware)
            if sample.applies_to_others or (sample.is_same_step(recipe) and not compute_only)
        ]
        if not samples:
            return Correction(1.0, False, "")
        distance = min(sample.depth_distance(recipe) for sample in samples)
        nearest = [sample for sample in samples if sample.depth_distance(recipe) == distance]
        factor = math.exp(statistics.median(sample.log_factor for sample in nearest))
        return Correction(factor, distance == 0, nearest[-1].source)

    def _samples_of(self, hardware: Hardware) -> list[_Sample]:
        key = f"{hardware.name} {' '.join(machine.name for machine in hardware.machines)}"
        if key not in self._samples:
            self._samples[key] = list(_find_samples(hardware, self._runs))
        return self._samples[key]


def load_calibration() -> Calibration:
    """Calibrate from all runs that this machine has seen."""
    return Calibration([*all_runs(), *all_mirrors()])


def _find_samples(hardware: Hardware, runs: Sequence[RunFolder]) -> Iterator[_Sample]:
    if hardware.measurement is not None:
        sample = _sample_of_probe(hardware, hardware.measurement)
        if sample is not None:
            yield sample
    if not hardware.links_measured:  # a slow network would be taken for slow computing
        return
    specs = [(run, spec) for run in runs if (spec := run.find_spec()) is not None]
    matching = [(run, spec) for run, spec in specs if spec.cluster == hardware.name]
    for run, spec in matching[-NEWEST_RUNS:]:
        sample = _sample_of_run(hardware, run, spec)
        if sample is not None:
            yield sample


def _sample_of_probe(hardware: Hardware, measurement: Measurement) -> _Sample | None:
    """None if there was no probe, or if it ran on other machines."""
    probe, first = measurement.probe, hardware.machines[0]
    if probe is None:
        return None
    if set(probe.shares) != {machine.name for machine in hardware.machines}:
        return None
    if not first.name and first.ranks > 1:  # this machine is measured with one worker
        return None
    rows = probe.tokens_per_step // probe.sequence_length // len(probe.shares)
    recipe = Recipe(
        depth=probe.depth,
        head_dim=probe.head_dim,
        sequence_length=probe.sequence_length,
        tokens_per_step=probe.tokens_per_step,
        steps=1000,
        micro_batch=largest_micro_batch(max(1, rows), probe.sequence_length, first.device),
    )
    source = f"{probe.recipe}, {measurement.day}"
    return _calibrate(recipe, hardware.with_shares(probe.shares), probe.step_seconds, source)


def _sample_of_run(hardware: Hardware, run: RunFolder, spec: RunSpec) -> _Sample | None:
    """None if the run was on other machines, or before they were measured."""
    if spec.device is None:  # not started yet
        return None
    if hardware.measurement is not None and spec.created < hardware.measurement.measured_at:
        return None
    try:
        recipe = spec.recipe
    except InputError:  # of another version
        return None
    same = set(spec.shares) == {machine.name for machine in hardware.machines}
    same &= recipe.workers == sum(machine.ranks for machine in hardware.machines)
    if not same or spec.device != hardware.machines[0].device or recipe.elastic:
        return None
    seconds = median_step_seconds(latest_attempts(read_last_metrics(run.metrics, NEWEST_BYTES)))
    if seconds is None:
        return None
    return _calibrate(recipe, hardware.with_shares(spec.shares), seconds, f"run {run.name}")


def median_step_seconds(metrics: Sequence[Metric]) -> float | None:
    """Leave out the first steps of each attempt; None if too few are left."""
    seen: Counter[int] = Counter()
    settled = []
    for metric in metrics:
        seen[metric.attempt] += 1
        if seen[metric.attempt] > SETTLING_STEPS:
            settled.append(metric.step_seconds)
    return statistics.median(settled) if len(settled) >= MIN_STEPS - SETTLING_STEPS else None


def _calibrate(recipe: Recipe, hardware: Hardware, seconds: float, source: str) -> _Sample | None:
    """Find the factor with which the predicted step takes `seconds`, by bisection: the prediction
    grows with the factor. None if the factor would exceed MAX_FACTOR."""
    plain = estimate_run(recipe, hardware)
    if plain is None:
        return None
    waiting = plain.step.exposed_seconds / plain.step.seconds
    if waiting > MAX_WAITING:
        return None
    max_log = math.log(MAX_FACTOR[plain.basis])
    low, high = -max_log, max_log
    for _ in range(30):
        middle = (low + high) / 2
        estimate = estimate_run(recipe, hardware, correction=math.exp(middle))
        assert estimate is not None
        if estimate.step.seconds < seconds:
            low = middle
        else:
            high = middle
    log_factor = (low + high) / 2
    if abs(log_factor) > 0.999 * max_log:
        return None
    applies_to_others = waiting <= MAX_WAITING_FOR_OTHERS[plain.basis]
    return _Sample(recipe.model, recipe.tokens_per_step, log_factor, applies_to_others, source)
