"""What this machine trains with, each choice with its reason. Imports torch."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

import torch

from launcher.config.recipe import Recipe
from launcher.errors import InputError


@dataclass(frozen=True)
class Hardware:
    """`threads` per worker. `reasons`: why each is so, for people."""

    device: str
    dtype: str
    threads: int
    reasons: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def choose_hardware(recipe: Recipe) -> Hardware:
    """Raises InputError where the recipe asks for what this machine cannot do."""
    if torch.cuda.is_available():
        return _gpu(recipe)
    cores = len(os.sched_getaffinity(0))
    if recipe.workers > cores:
        raise InputError(
            f"workers: {recipe.workers} on a machine of {cores} cores",
            fix=f"--set workers={cores} or fewer",
        )
    threads = cores // recipe.workers
    dtype, why = _cpu_dtype(recipe.dtype)
    return Hardware(
        device="cpu",
        dtype=dtype,
        threads=threads,
        reasons={
            "device": "CPU: torch sees no GPU",
            "dtype": f"{dtype}: {why}",
            "threads": f"{threads} per worker: {cores} cores for {recipe.workers}",
        },
    )


def _gpu(recipe: Recipe) -> Hardware:
    count = torch.cuda.device_count()
    if recipe.workers > count:
        raise InputError(
            f"workers: {recipe.workers} on a machine of {count} GPUs",
            fix=f"--set workers={count}: one worker per GPU",
        )
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = recipe.dtype if recipe.dtype != "auto" else "bfloat16" if bf16 else "float32"
    why = "the recipe says so" if recipe.dtype != "auto" else f"bfloat16 in hardware: {bf16}"
    name = torch.cuda.get_device_name(0)
    return Hardware(
        device="cuda",
        dtype=dtype,
        threads=1,
        reasons={"device": f"GPU: {name}", "dtype": f"{dtype}: {why}"},
    )


def _cpu_dtype(asked: str) -> tuple[str, str]:
    """bfloat16 products without instructions for them do not finish: a CPU has to be asked."""
    if asked == "float32":
        return "float32", "the recipe says so"
    if asked == "auto":
        return "float32", "bfloat16 is for GPUs"
    if not torch.cpu.get_capabilities().get("avx512_bf16", False):
        raise InputError(
            "dtype: bfloat16 on a CPU without bfloat16 instructions takes forever",
            fix="--set dtype=auto",
        )
    return "bfloat16", "the recipe says so, and this CPU has instructions for it"
