"""One training on some machines, before it begins: whether it fits, how fast it is, how long."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from launcher.config.recipe import Recipe
from launcher.planner.hardware import Hardware, Machine
from launcher.planner.memory import PeakMemory, peak_memory
from launcher.planner.step_time import RankLoad, StepTime, step_time
from launcher.planner.tuning import Place, tune
from nanochat.batch_split import UNTRAINED_TOKENS, largest_micro_batch, split_rows
from nanochat.sizes import checkpoint_bytes

# How far from the truth a prediction may be, as a factor both ways. taught: by runs of this size
# on measured machines; measured: of 30 rows all but one were within 12% (README, Predicted, and
# measured); estimate: of machines that nobody has measured.
SPREAD = {"taught": 1.1, "measured": 1.2, "estimate": 2.0}
SECONDS_PER_HOUR = 3600
COPY_TRANSFERS = 2  # of a checkpoint in memory: read and written


@dataclass(frozen=True)
class HostMemory:
    """`peak`: of one rank; `ranks` share the place: memory, or GPU memory. `available_bytes`: None
    where nobody has said it. `waits_for_writes`: there is no room for a copy of the state, and
    steps stand still until a checkpoint is written."""

    name: str
    peak: PeakMemory
    ranks: int
    available_bytes: int | None
    place: str
    waits_for_writes: bool = False

    @property
    def peak_bytes(self) -> int:
        """Of all ranks: one of them writes checkpoints."""
        return self.peak.total * self.ranks - self.peak.copy * (self.ranks - 1)

    @property
    def fits(self) -> bool | None:
        return None if self.available_bytes is None else self.peak_bytes <= self.available_bytes


@dataclass(frozen=True)
class Estimate:
    """`basis`: measured or estimate. `spread`: how far off it may be, a factor. `rows` of a step
    and `micro_batch`: of each rank, in rank order. Seconds: of one evaluation; for which the steps
    stand still for one checkpoint; and of writing the last one, which nothing goes on beside.
    `correction` of what computes, by the training that `taught_by` names."""

    recipe: Recipe
    site: Hardware
    ranks: tuple[RankLoad, ...]
    hosts: tuple[HostMemory, ...]
    step: StepTime
    basis: str
    spread: float
    evaluation_seconds: float
    checkpoint_seconds: float
    last_write_seconds: float
    correction: float
    taught_by: str

    @property
    def fits(self) -> bool | None:
        """None where nobody has said how much memory a host has, and nothing else is short."""
        each = [host.fits for host in self.hosts]
        if False in each or self.full_disks:
            return False
        return None if None in each else True

    @property
    def full_disks(self) -> list[Machine]:
        """Those without room for the checkpoints that are kept and the one that is written."""
        need = checkpoint_bytes(self.recipe.model) * (self.recipe.checkpoint.keep + 1)
        return [
            machine
            for machine in self.site.machines
            if machine.disk_free_bytes is not None and machine.disk_free_bytes < need
        ]

    @property
    def bottleneck(self) -> str:
        """What most of a step goes to, where, and all parts of it."""
        step = self.step
        parts = {name: seconds for name, seconds in step.parts.items() if seconds}
        name = max(parts, key=lambda part: parts[part])
        where = f" on {step.slowest}" if step.slowest and name != "network" else ""
        shares = [f"{part} {100 * parts[part] / step.seconds:.0f}%" for part in parts]
        return f"{name}{where}; of a step {', '.join(shares)}"

    @property
    def known_from(self) -> str:
        """Of the machines' speed, and of the links between them."""
        names: dict[str, list[str]] = {}
        for machine in self.site.machines:
            names.setdefault(machine.known_from, []).append(machine.name)
        words = [*names]
        if len(words) > 1:
            words = [f"{', '.join(names[known])} {known}" for known in words]
        if len(self.ranks) > 1:
            words.append(f"network {self.site.link_known_from}")
        if self.taught_by:
            words.append(f"corrected by {self.taught_by}")
        return "; ".join(dict.fromkeys(words))

    @property
    def tokens_per_second(self) -> float:
        return self.step.tokens_per_second

    def seconds_of(self, steps: int) -> float:
        """With their evaluations and checkpoints."""
        recipe = self.recipe
        # The one before training runs the model on a few rows; one is at the end in any case.
        first = min(1.0, UNTRAINED_TOKENS / recipe.evaluation.tokens)
        evaluations = first + math.ceil(steps / recipe.evaluation.every_steps)
        training = steps * self.step.seconds
        saves = 1.0
        if recipe.checkpoint.every_steps:
            saves += steps / recipe.checkpoint.every_steps
        if recipe.checkpoint.every_minutes:
            saves += training / (60 * recipe.checkpoint.every_minutes)
        stalls = evaluations * self.evaluation_seconds + saves * self.checkpoint_seconds
        return training + stalls + self.last_write_seconds

    @property
    def hours(self) -> float:
        """Of the whole horizon."""
        return self.seconds_of(self.recipe.steps_total) / SECONDS_PER_HOUR

    @property
    def kilowatt_hours(self) -> float | None:
        """Of the horizon; None where a machine's watts are not given."""
        watts = [machine.watts for machine in self.site.machines]
        known = [each for each in watts if each is not None]
        return sum(known) * self.hours / 1000 if len(known) == len(watts) else None

    def figures(self) -> dict[str, Any]:
        """What there is to say of it, for `--json`."""
        expected = self.tokens_per_second
        return {
            "fits": self.fits,
            "tokens_per_second": {
                "low": round(expected / self.spread, 1),
                "expected": round(expected, 1),
                "high": round(expected * self.spread, 1),
            },
            "step_seconds": round(self.step.seconds, 4),
            "hours": round(self.hours, 4),
            "hours_per_1000_steps": round(self.seconds_of(1000) / SECONDS_PER_HOUR, 4),
            "kilowatt_hours": None if (kwh := self.kilowatt_hours) is None else round(kwh, 2),
            "wire_bytes_per_step": self.step.wire_bytes,
        }


def estimate_run(
    recipe: Recipe,
    site: Hardware,
    *,
    correction: float = 1.0,
    taught: bool = False,
    taught_by: str = "",
) -> Estimate | None:
    """`correction`: of what computes, from trainings that were measured, the last of them
    `taught_by`; `taught`: by one of this size. None where a rank would get no row of a step."""
    model = recipe.model
    ranks = assign_rows(recipe, site)
    if ranks is None:
        return None
    speeds = {machine.name: machine.speed for machine in site.machines}
    device = site.machines[0].device
    dtype = chosen_dtype(recipe, device)
    step = step_time(
        model,
        ranks,
        speeds,
        site.slowest_link() if len(ranks) > 1 else None,
        table_dtype=dtype,
        correction=correction,
    )
    basis = "measured" if site.measured or taught else "estimate"
    # Forward alone is a third of the three: evaluation is dealt out as steps are.
    compute = sum(step.term(name) for name in ("blocks", "attention", "head"))
    evaluation = compute / 3 * recipe.evaluation.tokens / recipe.tokens_per_step
    memory = min(machine.speed.memory_bytes_per_second for machine in site.machines)
    disk = min(machine.speed.disk_bytes_per_second for machine in site.machines)
    write = checkpoint_bytes(model) / disk
    hosts = tuple(_memory_of(recipe, machine, ranks, dtype) for machine in site.machines)
    waits = any(host.waits_for_writes for host in hosts)
    return Estimate(
        recipe=recipe,
        site=site,
        ranks=tuple(ranks),
        hosts=hosts,
        step=step,
        basis=basis,
        spread=SPREAD["taught" if taught and site.measured else basis],
        evaluation_seconds=evaluation,
        checkpoint_seconds=write if waits else COPY_TRANSFERS * checkpoint_bytes(model) / memory,
        last_write_seconds=write,
        correction=correction,
        taught_by=taught_by,
    )


def assign_rows(recipe: Recipe, site: Hardware) -> list[RankLoad] | None:
    """The rows of a step as a run would deal them out: see launcher.planner.tuning."""
    machines = site.machines
    places = [Place(each.name, slots=each.ranks, share=each.share) for each in machines]
    device = machines[0].device
    chosen = tune(recipe, site.measurement, places, device=device, torch_version=None)
    names = [machine.name for machine in machines for _ in range(machine.ranks)]
    weights = [
        chosen.shares.get(machine.name, machine.share or 1.0) / machine.ranks
        for machine in machines
        for _ in range(machine.ranks)
    ]
    dealt = split_rows(recipe.rows_per_step, weights)
    if not all(dealt):
        return None
    length, given = recipe.sequence_length, recipe.micro_batch or chosen.micro_batch
    return [
        RankLoad(
            name, len(rows),
            min(given or largest_micro_batch(len(rows), length, device), len(rows)),
        )
        for name, rows in zip(names, dealt, strict=True)
    ]  # fmt: skip


def chosen_dtype(recipe: Recipe, device: str) -> str:
    if recipe.dtype != "auto":
        return recipe.dtype
    return "bfloat16" if device == "cuda" else "float32"


def _memory_of(recipe: Recipe, machine: Machine, ranks: list[RankLoad], dtype: str) -> HostMemory:
    """Of all ranks of a CPU host, or of one of its GPUs."""
    mine = [load for load in ranks if load.host == machine.name]
    saves = recipe.checkpoint
    on_the_way = saves.every_minutes is not None or (
        saves.every_steps is not None and saves.every_steps < recipe.steps_total
    )
    peak = peak_memory(
        recipe.model,
        max(load.micro_batch for load in mine),
        device=machine.device,
        dtype=dtype,
        passes=max(load.passes for load in mine),
        rank_tokens=[load.rows * recipe.sequence_length for load in ranks],
        keeps_copy=on_the_way,
        process_bytes=machine.speed.resident_bytes,
    )
    if machine.device == "cuda":
        return HostMemory(machine.name, peak, 1, machine.memory_bytes, "GPU memory")
    place = "memory" if machine.name else "free memory"
    host = HostMemory(machine.name, peak, len(mine), machine.memory_bytes, place)
    if host.fits is False and peak.copy:  # then none is taken, and steps wait for what is written
        return replace(host, peak=replace(peak, copy=0), waits_for_writes=True)
    return host
