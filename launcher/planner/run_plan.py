"""What a recipe would be on some machines, and what else could be done: nothing is started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from launcher.config.recipe import Recipe
from launcher.planner.calibration import Calibration
from launcher.planner.estimate import Estimate, chosen_dtype, estimate_run
from launcher.planner.hardware import Hardware
from launcher.planner.tuning import balanced_rows
from nanochat.sizes import parameter_counts

SMALLER_DEPTHS = (20, 12, 8, 4)
MORE_TOKENS, FEWER_TOKENS = 8, 1 / 8  # of a step, to compare with
MOST_TOKENS = 2**20


@dataclass(frozen=True)
class Alternative:
    """Another way, and what it would be. `kind`: shares, host, pool, micro_batch, tokens_per_step
    or size; `words`: what it is; `options`: what a command line needs for it, where that is all."""

    kind: str
    words: str
    options: str | None
    prospect: Estimate

    def as_json(self) -> dict[str, Any]:
        what = {"kind": self.kind, "what": self.words, "options": self.options}
        return {**what, **self.prospect.figures()}


@dataclass(frozen=True)
class RunPlan:
    name: str
    prospect: Estimate
    alternatives: tuple[Alternative, ...]

    def of(self, kind: str) -> list[Alternative]:
        return [each for each in self.alternatives if each.kind == kind]


def make_plan(
    name: str, recipe: Recipe, site: Hardware, others: dict[str, Hardware], lessons: Calibration
) -> RunPlan | None:
    """`others`: what else the machines' file has: options of a command line -> machines. None where
    a host would get no row of a step."""
    prospect = _foresee(recipe, site, lessons)
    if prospect is None:
        return None
    found = _alternatives(prospect, site, others, lessons)
    return RunPlan(name, prospect, tuple(found))


def _alternatives(
    foreseen: Estimate, site: Hardware, others: dict[str, Hardware], lessons: Calibration
) -> Iterator[Alternative]:
    recipe = foreseen.recipe
    candidates: list[tuple[str, str, str | None, Recipe, Hardware]] = []
    balanced = balanced_hardware(recipe, site)
    if balanced is not None:
        words = "rows dealt by speed"
        candidates.append(("shares", words, f"launch measure {site.options}", recipe, balanced))
    if len(site.machines) > 1:
        for machine in site.machines:
            alone = site.only([machine.name])
            candidates.append(("host", f"{machine.label} alone", None, recipe, alone))
    for pool, other in others.items():
        candidates.append(("pool", _pool_words(other), pool, recipe, other))
    length = recipe.sequence_length
    for factor in (FEWER_TOKENS, MORE_TOKENS):
        tokens = int(recipe.tokens_per_step * factor) // length * length
        if length <= tokens <= MOST_TOKENS and tokens != recipe.tokens_per_step:
            changed = with_tokens_per_step(recipe, tokens)
            words, option = f"{tokens:,} tokens a step", f"--set tokens_per_step={tokens}"
            if recipe.steps is not None:
                option += f" --steps {changed.steps}"
            candidates.append(("tokens_per_step", words, option, changed, site))
    for depth in SMALLER_DEPTHS:
        if depth < recipe.depth:
            candidates.append(("size", f"d{depth}", None, with_depth(recipe, depth), site))
    if foreseen.fits is False:
        yield from _smaller_passes(foreseen, site, lessons)
    for kind, what, options, changed, there in candidates:
        prospect = _foresee(changed, there, lessons, part_of=site if kind == "host" else None)
        if prospect is not None:
            yield Alternative(kind, what, options, prospect)


def _smaller_passes(
    foreseen: Estimate, site: Hardware, lessons: Calibration
) -> Iterator[Alternative]:
    """The largest with which it fits, where one does."""
    rows = max(load.micro_batch for load in foreseen.ranks)
    while (rows := rows // 2) >= 1:
        changed = foreseen.recipe.model_copy(update={"micro_batch": rows})
        prospect = _foresee(changed, site, lessons)
        if prospect is not None and prospect.fits is not False:
            words = f"passes of {rows * changed.sequence_length:,} tokens"
            yield Alternative("micro_batch", words, f"--set micro_batch={rows}", prospect)
            return


def balanced_hardware(recipe: Recipe, site: Hardware) -> Hardware | None:
    """With the shares that a measurement would choose, where none has been made and the file says
    nothing."""
    machines = site.machines
    if len(machines) < 2 or site.measured or any(each.share is not None for each in machines):
        return None
    rows = balanced_rows(
        recipe.model,
        recipe.rows_per_step,
        [machine.speed for machine in machines],
        [machine.ranks for machine in machines],
        chosen_dtype(recipe, machines[0].device),
    )
    if rows is None or max(rows) < 1.05 * min(rows):
        return None
    return site.with_shares({each.name: share for each, share in zip(machines, rows, strict=True)})


def with_tokens_per_step(recipe: Recipe, tokens: int) -> Recipe:
    """Of as many tokens in all."""
    steps = max(1, round(recipe.steps_total * recipe.tokens_per_step / tokens))
    return _with_steps(recipe, steps, tokens_per_step=tokens)


def with_depth(recipe: Recipe, depth: int) -> Recipe:
    """Another size with the same tokens per step, trained on as many tokens per scaling
    parameter."""
    other = recipe.model_copy(update={"depth": depth})
    ratio = parameter_counts(other.model).scaling / parameter_counts(recipe.model).scaling
    steps = max(1, round(ratio * recipe.steps_total))
    return _with_steps(recipe, steps, depth=depth, micro_batch=None)


def _with_steps(recipe: Recipe, steps: int, **changes: Any) -> Recipe:
    horizon = {"tokens": None, "flops": None, "tokens_per_scaling_parameter": None}
    return recipe.model_copy(update={**horizon, "steps": steps, **changes})


def _foresee(
    recipe: Recipe, site: Hardware, lessons: Calibration, *, part_of: Hardware | None = None
) -> Estimate | None:
    """`part_of`: whose lessons count where `site` has none: else the one would be compared as it is
    with the other as it should be."""
    lesson = lessons.of(site, recipe)
    if not lesson.words and part_of is not None:
        lesson = lessons.of(part_of, recipe, for_part=True)
    return estimate_run(
        recipe, site,
        correction=lesson.correction, taught=lesson.of_this_size, taught_by=lesson.words,
    )  # fmt: skip


def _pool_words(site: Hardware) -> str:
    return " and ".join(machine.speed.processor for machine in site.machines)
