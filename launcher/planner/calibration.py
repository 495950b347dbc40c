"""What trainings teach the planner: by how much steps took longer than they were predicted to.

From the probe of `launch measure`, and from the folders of runs of at least LEAST_STEPS steps, on
the machines as they were measured.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from launcher.config.recipe import Recipe
from launcher.planner.estimate import estimate_run
from launcher.planner.hardware import Hardware
from launcher.runs.folder import RunFolder
from launcher.runs.records import Record, last_records, latest_attempts
from nanochat.batch_split import largest_micro_batch
from nanochat.sizes import ModelConfig

LEAST_STEPS, SETTLING_STEPS = 8, 3
NEWEST_RUNS, NEWEST_BYTES = 20, 200_000  # of each run some 400 steps
# Beyond, something else was at work on those machines, or its estimate is of others.
MOST_CORRECTION = {"measured": 2.0, "estimate": 20.0}
# Of a step that waits longer for the network, a part of it, nothing is learned of computing.
MOST_WAITING = 0.3
# Or where hosts were measured, nothing for other steps than this: at 18% (d4 on two hosts at
# 1 Gbit/s) what was wrong of the network would make other sizes 11 to 16% too slow.
MOST_WAITING_FOR_OTHERS = {"measured": 0.1, "estimate": MOST_WAITING}


@dataclass(frozen=True)
class Correction:
    """`correction`: of what computes, a factor; `of_this_size`: from a training of this depth;
    `words`: what it is from."""

    correction: float
    of_this_size: bool
    words: str


@dataclass(frozen=True)
class _Known:
    """Of one training: log of the correction; whether it counts for other steps too."""

    model: ModelConfig
    tokens_per_step: int
    log: float
    for_others: bool
    words: str

    def same_step(self, recipe: Recipe) -> bool:
        return self.model == recipe.model and self.tokens_per_step == recipe.tokens_per_step


class Calibration:
    """`runs`: finished or stopped ones, the newest last."""

    def __init__(self, runs: Sequence[RunFolder]) -> None:
        self._runs = runs
        self._known: dict[str, list[_Known]] = {}

    def of(self, site: Hardware, recipe: Recipe, *, for_part: bool = False) -> Correction:
        """That of the depths nearest to the recipe's. `for_part`: of the site's hosts: what it
        teaches of their computing, apart from what is between them."""

        def away_from(each: _Known) -> float:
            return abs(math.log(each.model.depth / recipe.depth))

        known = [
            each
            for each in self._of_site(site)
            if each.for_others or (each.same_step(recipe) and not for_part)
        ]
        if not known:
            return Correction(1.0, False, "")
        away = min(map(away_from, known))
        near = [each for each in known if away_from(each) == away]
        correction = math.exp(statistics.median(each.log for each in near))
        return Correction(correction, away == 0, near[-1].words)

    def _of_site(self, site: Hardware) -> list[_Known]:
        key = f"{site.name} {' '.join(machine.name for machine in site.machines)}"
        if key not in self._known:
            self._known[key] = list(_known_of(site, self._runs))
        return self._known[key]


def _known_of(site: Hardware, runs: Sequence[RunFolder]) -> Iterator[_Known]:
    measured = site.measurement
    if measured is not None and measured.probe is not None:
        probe = measured.probe
        rows = probe.tokens_per_step // probe.sequence_length // len(probe.shares)
        device = site.machines[0].device
        recipe = Recipe(
            depth=probe.depth,
            head_dim=probe.head_dim,
            sequence_length=probe.sequence_length,
            tokens_per_step=probe.tokens_per_step,
            steps=1000,
            micro_batch=largest_micro_batch(max(1, rows), probe.sequence_length, device),
        )
        same = set(probe.shares) == {machine.name for machine in site.machines}
        here = site.machines[0]
        if same and (here.name or here.ranks == 1):  # this machine is measured with one worker
            its = site.with_shares(probe.shares)
            words = f"{probe.recipe}, {measured.day}"
            known = _learned(recipe, its, probe.step_seconds, words)
            if known is not None:
                yield known
    if not site.links_measured:  # a slow network would be taken for slow computing
        return
    its_runs = [run for run in runs if run.spec().get("cluster") == site.name]
    for run in its_runs[-NEWEST_RUNS:]:
        known = _of_run(site, run)
        if known is not None:
            yield known


def _of_run(site: Hardware, run: RunFolder) -> _Known | None:
    """None where it was on other machines, or before they were measured."""
    spec = run.spec()
    if not {"device", "created", "settings"} <= spec.keys():  # it has not begun, or is not whole
        return None
    if site.measurement is not None and spec["created"] < site.measurement.measured_at:
        return None
    try:
        recipe = Recipe.model_validate(spec["settings"])
    except ValidationError:  # of another version
        return None
    shares = {node["name"]: node.get("share", 1.0) for node in spec.get("nodes", ())} or {"": 1.0}
    same = set(shares) == {machine.name for machine in site.machines}
    same &= recipe.workers == sum(machine.ranks for machine in site.machines)
    if not same or spec["device"] != site.machines[0].device or recipe.elastic:
        return None
    seconds = median_step_seconds(latest_attempts(last_records(run.metrics, NEWEST_BYTES)))
    if seconds is None:
        return None
    return _learned(recipe, site.with_shares(shares), seconds, f"run {run.name}")


def median_step_seconds(records: Sequence[Record]) -> float | None:
    """The first ones of each attempt left out; None where too few are left."""
    seen: Counter[int] = Counter()
    settled = []
    for record in records:
        seen[record["attempt"]] += 1
        if seen[record["attempt"]] > SETTLING_STEPS:
            settled.append(record["step_seconds"])
    return statistics.median(settled) if len(settled) >= LEAST_STEPS - SETTLING_STEPS else None


def _learned(recipe: Recipe, site: Hardware, seconds: float, words: str) -> _Known | None:
    """The correction with which the step takes as long: it grows with that, so halve the interval.
    None where it would have to be more than MOST_CORRECTION."""
    plain = estimate_run(recipe, site)
    if plain is None:
        return None
    waiting = plain.step.exposed_seconds / plain.step.seconds
    if waiting > MOST_WAITING:
        return None
    most = math.log(MOST_CORRECTION[plain.basis])
    low, high = -most, most
    for _ in range(30):
        middle = (low + high) / 2
        prospect = estimate_run(recipe, site, correction=math.exp(middle))
        assert prospect is not None
        if prospect.step.seconds < seconds:
            low = middle
        else:
            high = middle
    found = (low + high) / 2
    if abs(found) > 0.999 * most:
        return None
    for_others = waiting <= MOST_WAITING_FOR_OTHERS[plain.basis]
    return _Known(recipe.model, recipe.tokens_per_step, found, for_others, words)
