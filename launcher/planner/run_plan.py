"""The plan of a run: its estimate on some machines, and the alternatives. Nothing is started."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from launcher.config.cluster_hosts import ClusterHosts
from launcher.config.recipe import LoadedRecipe, Recipe
from launcher.planner.calibration import Calibration, load_calibration
from launcher.planner.estimate import Estimate, estimate_run, resolve_dtype
from launcher.planner.hardware import Hardware, find_hardware
from launcher.planner.tuning import balanced_rows
from launcher.runs.spec import Prediction, SpeedRange
from nanochat.sizes import parameter_counts

SMALLER_DEPTHS = (20, 12, 8, 4)
TOKENS_PER_STEP_FACTORS = (1 / 8, 8)  # smaller and larger steps to compare with
MAX_TOKENS_PER_STEP = 2**20


@dataclass(frozen=True)
class Alternative:
    """Another way to train, and its estimate."""

    kind: str
    """shares, host, pool, micro_batch, tokens_per_step or size."""
    description: str
    """What it is, for people."""
    options: str | None
    """What a command line needs for it; None if that is not enough."""
    estimate: Estimate

    def as_json(self) -> dict[str, Any]:
        what = {"kind": self.kind, "what": self.description, "options": self.options}
        return {**what, **self.estimate.figures()}


@dataclass(frozen=True)
class RunPlan:
    name: str
    estimate: Estimate
    alternatives: tuple[Alternative, ...]

    def of_kind(self, kind: str) -> list[Alternative]:
        return [alternative for alternative in self.alternatives if alternative.kind == kind]


@dataclass(frozen=True)
class _Candidate:
    """An alternative that has no estimate yet."""

    kind: str
    description: str
    options: str | None
    recipe: Recipe
    hardware: Hardware


def plan_run(loaded: LoadedRecipe, hosts: ClusterHosts | None) -> RunPlan:
    """Plan a recipe on some hosts; None is this machine.

    Raises ConfigError if a host would get no row of a step.
    """
    hardware, others = find_hardware(hosts, loaded.recipe.workers)
    plan = make_plan(loaded.name, loaded.recipe, hardware, others, load_calibration())
    if plan is None:
        rows = loaded.recipe.rows_per_step
        raise loaded.error(
            "tokens_per_step",
            f"{rows} rows per step leave none for a host of {hardware.name}",
            fix="more tokens per step, fewer hosts (--pool), or other shares in the cluster file",
        )
    return plan


def prediction(plan: RunPlan) -> Prediction:
    """Return what run.json keeps of the plan, to be compared with what the run does."""
    figures = plan.estimate.figures()
    return Prediction(
        tokens_per_second=SpeedRange(**figures["tokens_per_second"]),
        step_seconds=figures["step_seconds"],
        hours=figures["hours"],
        basis=plan.estimate.basis,
    )


def make_plan(
    name: str,
    recipe: Recipe,
    hardware: Hardware,
    others: dict[str, Hardware],
    calibration: Calibration,
) -> RunPlan | None:
    """Plan a recipe on some machines; None if a host would get no row of a step. `others`: the
    other machines of the same cluster file, by the options that select them."""
    estimate = _estimate(recipe, hardware, calibration)
    if estimate is None:
        return None
    alternatives = _find_alternatives(estimate, others, calibration)
    return RunPlan(name, estimate, tuple(alternatives))


def _find_alternatives(
    estimate: Estimate, others: dict[str, Hardware], calibration: Calibration
) -> Iterator[Alternative]:
    recipe, hardware = estimate.recipe, estimate.hardware
    if estimate.fits is False:
        yield from _smaller_micro_batch(estimate, calibration)
    candidates = [
        *_other_machines(recipe, hardware, others),
        *_other_steps(recipe, hardware),
        *(
            _Candidate("size", f"d{depth}", None, with_depth(recipe, depth), hardware)
            for depth in SMALLER_DEPTHS
            if depth < recipe.depth
        ),
    ]
    for candidate in candidates:
        found = _estimate(
            candidate.recipe,
            candidate.hardware,
            calibration,
            part_of=hardware if candidate.kind == "host" else None,
        )
        if found is not None:
            yield Alternative(candidate.kind, candidate.description, candidate.options, found)


def _other_machines(
    recipe: Recipe, hardware: Hardware, others: dict[str, Hardware]
) -> Iterator[_Candidate]:
    """Other shares, each host alone, the other pools."""
    balanced = balanced_hardware(recipe, hardware)
    if balanced is not None:
        options = f"launch measure {hardware.options}"
        yield _Candidate("shares", "rows dealt by speed", options, recipe, balanced)
    if len(hardware.machines) > 1:
        for machine in hardware.machines:
            alone = hardware.only([machine.name])
            yield _Candidate("host", f"{machine.label} alone", None, recipe, alone)
    for options, other in others.items():
        processors = " and ".join(machine.speed.processor for machine in other.machines)
        yield _Candidate("pool", processors, options, recipe, other)


def _other_steps(recipe: Recipe, hardware: Hardware) -> Iterator[_Candidate]:
    """Fewer and more tokens per step."""
    length = recipe.sequence_length
    for factor in TOKENS_PER_STEP_FACTORS:
        tokens = int(recipe.tokens_per_step * factor) // length * length
        if length <= tokens <= MAX_TOKENS_PER_STEP and tokens != recipe.tokens_per_step:
            changed = with_tokens_per_step(recipe, tokens)
            options = f"--set tokens_per_step={tokens}"
            if recipe.steps is not None:
                options += f" --steps {changed.steps}"
            description = f"{tokens:,} tokens a step"
            yield _Candidate("tokens_per_step", description, options, changed, hardware)


def _smaller_micro_batch(estimate: Estimate, calibration: Calibration) -> Iterator[Alternative]:
    """The largest micro-batch that fits, if one does."""
    rows = max(load.micro_batch for load in estimate.ranks)
    while (rows := rows // 2) >= 1:
        changed = estimate.recipe.model_copy(update={"micro_batch": rows})
        found = _estimate(changed, estimate.hardware, calibration)
        if found is not None and found.fits is not False:
            description = f"passes of {rows * changed.sequence_length:,} tokens"
            yield Alternative("micro_batch", description, f"--set micro_batch={rows}", found)
            return


def balanced_hardware(recipe: Recipe, hardware: Hardware) -> Hardware | None:
    """Return the hardware with the shares that a measurement would choose; None if a measurement
    has chosen them, or if the cluster file states one."""
    machines = hardware.machines
    if len(machines) < 2 or hardware.measured:
        return None
    if any(machine.has_explicit_share for machine in machines):
        return None
    rows = balanced_rows(
        recipe.model,
        recipe.rows_per_step,
        [machine.speed for machine in machines],
        [machine.ranks for machine in machines],
        resolve_dtype(recipe, machines[0].device),
    )
    if rows is None or max(rows) < 1.05 * min(rows):
        return None
    return hardware.with_shares(
        {machine.name: share for machine, share in zip(machines, rows, strict=True)}
    )


def with_tokens_per_step(recipe: Recipe, tokens: int) -> Recipe:
    """Return the recipe with other steps, and as many tokens in all."""
    steps = max(1, round(recipe.steps_total * recipe.tokens_per_step / tokens))
    return _with_steps(recipe, steps, tokens_per_step=tokens)


def with_depth(recipe: Recipe, depth: int) -> Recipe:
    """Return another size with the same tokens per step, trained on as many tokens per scaling
    parameter."""
    other = recipe.model_copy(update={"depth": depth})
    ratio = parameter_counts(other.model).scaling / parameter_counts(recipe.model).scaling
    steps = max(1, round(ratio * recipe.steps_total))
    return _with_steps(recipe, steps, depth=depth, micro_batch=None)


def _with_steps(recipe: Recipe, steps: int, **changes: Any) -> Recipe:
    horizon = {"tokens": None, "flops": None, "tokens_per_scaling_parameter": None}
    return recipe.model_copy(update={**horizon, "steps": steps, **changes})


def _estimate(
    recipe: Recipe,
    hardware: Hardware,
    calibration: Calibration,
    *,
    part_of: Hardware | None = None,
) -> Estimate | None:
    """Estimate with the calibration of the hardware; if it has none, with that of `part_of`.
    Otherwise an uncorrected estimate would be compared with a corrected one."""
    correction = calibration.correction_for(hardware, recipe)
    if not correction.source and part_of is not None:
        correction = calibration.correction_for(part_of, recipe, compute_only=True)
    return estimate_run(
        recipe,
        hardware,
        correction=correction.factor,
        same_depth=correction.same_depth,
        calibrated_from=correction.source,
    )
