"""The estimate of a training on some machines: whether it fits, its speed and its duration."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from launcher.config.recipe import Recipe
from launcher.planner.hardware import Hardware, Machine
from launcher.planner.memory import PeakMemory, peak_memory
from launcher.planner.step_time import RankLoad, StepTime, step_time
from launcher.planner.tuning import tune
from nanochat.batch_split import UNTRAINED_TOKENS, largest_micro_batch, split_rows
from nanochat.sizes import checkpoint_bytes

# How far from the truth a prediction may be, as a factor both ways. calibrated: by runs of this
# size on measured machines; measured: of 30 rows all but one were within 12% (README, Predicted,
# and measured); estimate: of machines that nobody has measured.
SPREAD = {"calibrated": 1.1, "measured": 1.2, "estimate": 2.0}
SECONDS_PER_HOUR = 3600
COPY_TRANSFERS = 2  # of a checkpoint in memory: read and written


@dataclass(frozen=True)
class HostMemory:
    """The memory of one host, or of one of its GPUs, and what its ranks need of it."""

    name: str
    peak: PeakMemory
    """Of one rank."""
    ranks: int
    """How many ranks share the memory."""
    available_bytes: int | None
    """None if it is unknown."""
    memory_kind: str
    """memory, free memory or GPU memory, for people."""
    blocking_checkpoints: bool = False
    """Steps wait until a checkpoint is written: there is no room for a copy of the state."""

    @property
    def peak_bytes(self) -> int:
        """Of all ranks. One of them writes checkpoints, so only one needs a copy."""
        return self.peak.total * self.ranks - self.peak.copy * (self.ranks - 1)

    @property
    def fits(self) -> bool | None:
        return None if self.available_bytes is None else self.peak_bytes <= self.available_bytes


@dataclass(frozen=True)
class Estimate:
    """What a training needs and how long it takes."""

    recipe: Recipe
    hardware: Hardware
    ranks: tuple[RankLoad, ...]
    """In rank order."""
    hosts: tuple[HostMemory, ...]
    step: StepTime
    basis: str
    """measured or estimate."""
    spread: float
    """How far off it may be, as a factor both ways."""
    evaluation_seconds: float
    """Of one evaluation."""
    checkpoint_seconds: float
    """How long the steps wait for one checkpoint."""
    last_write_seconds: float
    """Of writing the last checkpoint, which no step overlaps."""
    correction: float
    """A factor on the compute time, applied already."""
    calibrated_from: str
    """The training that gave the correction, for people; empty if there was none."""

    @property
    def fits(self) -> bool | None:
        """None if the memory of a host is unknown and nothing else is short."""
        fits = [host.fits for host in self.hosts]
        if False in fits or self.full_disks:
            return False
        return None if None in fits else True

    @property
    def full_disks(self) -> list[Machine]:
        """Machines without room for the checkpoints that are kept and the one being written."""
        need = checkpoint_bytes(self.recipe.model) * (self.recipe.checkpoint.keep + 1)
        return [
            machine
            for machine in self.hardware.machines
            if machine.disk_free_bytes is not None and machine.disk_free_bytes < need
        ]

    @property
    def bottleneck(self) -> str:
        """The part that takes most of a step, its host, and the shares of all parts."""
        step = self.step
        parts = {name: seconds for name, seconds in step.parts.items() if seconds}
        name = max(parts, key=lambda part: parts[part])
        host = f" on {step.slowest}" if step.slowest and name != "network" else ""
        shares = [f"{part} {100 * parts[part] / step.seconds:.0f}%" for part in parts]
        return f"{name}{host}; of a step {', '.join(shares)}"

    @property
    def basis_text(self) -> str:
        """Where the speeds of the machines and of their links come from."""
        names: dict[str, list[str]] = {}
        for machine in self.hardware.machines:
            names.setdefault(machine.speed_source, []).append(machine.name)
        sources = [*names]
        if len(sources) > 1:
            sources = [f"{', '.join(names[source])} {source}" for source in sources]
        if len(self.ranks) > 1:
            sources.append(f"network {self.hardware.link_source}")
        if self.calibrated_from:
            sources.append(f"corrected by {self.calibrated_from}")
        return "; ".join(dict.fromkeys(sources))

    @property
    def tokens_per_second(self) -> float:
        return self.step.tokens_per_second

    def seconds_of(self, steps: int) -> float:
        """How long so many steps take, with their evaluations and checkpoints."""
        recipe = self.recipe
        # The evaluation before training runs on a few rows; the one at the end always runs.
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
        """Energy for the whole horizon; None if a machine's watts are unknown."""
        watts = [machine.watts for machine in self.hardware.machines]
        known = [value for value in watts if value is not None]
        return sum(known) * self.hours / 1000 if len(known) == len(watts) else None

    def figures(self) -> dict[str, Any]:
        """The keys that every estimate has in `--json`."""
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
    hardware: Hardware,
    *,
    correction: float = 1.0,
    same_depth: bool = False,
    calibrated_from: str = "",
) -> Estimate | None:
    """Estimate a training; None if a rank would get no row of a step.

    `correction`: a factor on the compute time, from the training named by `calibrated_from`;
    `same_depth`: whether that training had the recipe's depth.
    """
    model = recipe.model
    ranks = assign_rows(recipe, hardware)
    if ranks is None:
        return None
    speeds = {machine.name: machine.speed for machine in hardware.machines}
    device = hardware.machines[0].device
    dtype = resolve_dtype(recipe, device)
    step = step_time(
        model,
        ranks,
        speeds,
        hardware.slowest_link() if len(ranks) > 1 else None,
        table_dtype=dtype,
        correction=correction,
    )
    basis = "measured" if hardware.measured or same_depth else "estimate"
    # Forward is a third of forward and backward. Evaluation is split among ranks as steps are.
    compute = sum(step.term(name) for name in ("blocks", "attention", "head"))
    evaluation = compute / 3 * recipe.evaluation.tokens / recipe.tokens_per_step
    memory = min(machine.speed.memory_bytes_per_second for machine in hardware.machines)
    disk = min(machine.speed.disk_bytes_per_second for machine in hardware.machines)
    write = checkpoint_bytes(model) / disk
    hosts = tuple(_host_memory(recipe, machine, ranks, dtype) for machine in hardware.machines)
    blocking = any(host.blocking_checkpoints for host in hosts)
    return Estimate(
        recipe=recipe,
        hardware=hardware,
        ranks=tuple(ranks),
        hosts=hosts,
        step=step,
        basis=basis,
        spread=SPREAD["calibrated" if same_depth and hardware.measured else basis],
        evaluation_seconds=evaluation,
        checkpoint_seconds=write if blocking else COPY_TRANSFERS * checkpoint_bytes(model) / memory,
        last_write_seconds=write,
        correction=correction,
        calibrated_from=calibrated_from,
    )


def assign_rows(recipe: Recipe, hardware: Hardware) -> list[RankLoad] | None:
    """Split the rows of a step among ranks as a run would: see launcher.planner.tuning."""
    machines = hardware.machines
    nodes = [machine.node for machine in machines]
    explicit = {m.name: m.node.share for m in machines if m.has_explicit_share}
    device = machines[0].device
    tuning = tune(recipe, hardware.measurement, nodes, explicit, device=device, torch_version=None)
    names = [machine.name for machine in machines for _ in range(machine.ranks)]
    weights = [
        tuning.shares.get(machine.name, machine.node.share) / machine.ranks
        for machine in machines
        for _ in range(machine.ranks)
    ]
    split = split_rows(recipe.rows_per_step, weights)
    if not all(split):
        return None
    length, micro_batch = recipe.sequence_length, recipe.micro_batch or tuning.micro_batch
    return [
        RankLoad(
            name, len(rows),
            min(micro_batch or largest_micro_batch(len(rows), length, device), len(rows)),
        )
        for name, rows in zip(names, split, strict=True)
    ]  # fmt: skip


def resolve_dtype(recipe: Recipe, device: str) -> str:
    """Return the dtype that a run would use."""
    if recipe.dtype != "auto":
        return recipe.dtype
    return "bfloat16" if device == "cuda" else "float32"


def _host_memory(recipe: Recipe, machine: Machine, ranks: list[RankLoad], dtype: str) -> HostMemory:
    """The memory of all ranks of a CPU host, or of one of its GPUs."""
    loads = [load for load in ranks if load.host == machine.name]
    checkpoint = recipe.checkpoint
    saves_before_end = checkpoint.every_minutes is not None or (
        checkpoint.every_steps is not None and checkpoint.every_steps < recipe.steps_total
    )
    peak = peak_memory(
        recipe.model,
        max(load.micro_batch for load in loads),
        device=machine.device,
        dtype=dtype,
        passes=max(load.passes for load in loads),
        rank_tokens=[load.rows * recipe.sequence_length for load in ranks],
        keeps_copy=saves_before_end,
        process_bytes=machine.speed.resident_bytes,
    )
    if machine.device == "cuda":
        return HostMemory(machine.name, peak, 1, machine.memory_bytes, "GPU memory")
    kind = "memory" if machine.name else "free memory"
    host = HostMemory(machine.name, peak, len(loads), machine.memory_bytes, kind)
    if host.fits is False and peak.copy:  # a run then takes no copy, and its steps wait
        return replace(host, peak=replace(peak, copy=0), blocking_checkpoints=True)
    return host
