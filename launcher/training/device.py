"""What this machine trains with, each choice with its reason. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from launcher.config.recipe import Recipe
from launcher.errors import InputError, RunFailed
from launcher.runs.node import RunNode
from launcher.runs.spec import Tuning
from launcher.training.session import Session
from nanochat.batch_split import split_rows


@dataclass(frozen=True)
class ComputeDevice:
    """`threads`: of each worker, by its node; `cpus`: what they are pinned to, by those nodes where
    they are. `reasons`: why each is so, for people."""

    device: str
    dtype: str
    threads: dict[str, int]
    reasons: dict[str, str]
    cpus: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def choose_device(recipe: Recipe, session: Session, tuning: Tuning | None = None) -> ComputeDevice:
    """Choose device, dtype and threads.

    `tuning`: what was chosen by a measurement when the run was created. Raises InputError if the
    recipe asks for something that the machines cannot do.
    """
    tuning = tuning or Tuning()
    if session.accelerator not in (None, "cpu") and not torch.cuda.is_available():
        raise RunFailed(
            f"accelerator is {session.accelerator}, but torch {torch.__version__} sees no GPU",
            fix="launch cluster check says what is wrong with it; or write accelerator: cpu",
        )
    if torch.cuda.is_available():
        return _choose_gpu(recipe, session, tuning)
    for node in session.nodes:
        if node.cpus is not None and node.cpus < node.ranks_per_node:
            raise InputError(
                f"workers: {node.ranks_per_node} on a machine of {node.cpus} cores",
                fix=f"--set workers={node.cpus} or fewer",
            )
    dtype, why = _cpu_dtype(recipe.dtype)
    return ComputeDevice(
        device="cpu",
        dtype=dtype,
        threads={
            node.name: min(node.cpus_per_rank, tuning.threads.get(node.name, node.cpus_per_rank))
            for node in session.nodes
        },
        cpus=dict(tuning.cpus),
        reasons={
            "device": "CPU: torch sees no GPU",
            "dtype": f"{dtype}: {why}",
            "threads": _threads_reason(session.nodes),
            **_shares_reason(recipe.rows_per_step, session.nodes),
            **tuning.reasons,
        },
    )


def _threads_reason(nodes: Sequence[RunNode]) -> str:
    if not nodes[0].name:
        node = nodes[0]
        return f"{node.cpus_per_rank} per worker: {node.cpus} cores for {node.ranks_per_node}"
    per_node = ", ".join(f"{node.name} {node.cpus_per_rank}" for node in nodes)
    return f"{per_node}: the cores of each host"


def _shares_reason(rows: int, nodes: Sequence[RunNode]) -> dict[str, str]:
    """Nothing if they are equal."""
    shares = [node.share for node in nodes]
    if len(set(shares)) == 1:
        return {}
    rows_by_node = zip(nodes, split_rows(rows, shares), strict=True)
    per_node = ", ".join(f"{node.name} {len(split)}" for node, split in rows_by_node)
    return {"shares": f"{per_node} of the {rows} rows of a step: the cluster file says so"}


def _choose_gpu(recipe: Recipe, session: Session, tuning: Tuning) -> ComputeDevice:
    count = torch.cuda.device_count()
    on_cluster = session.accelerator is not None
    if recipe.workers > count and not on_cluster:
        raise InputError(
            f"workers: {recipe.workers} on a machine of {count} GPUs",
            fix=f"--set workers={count}: one worker per GPU",
        )
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = recipe.dtype if recipe.dtype != "auto" else "bfloat16" if bf16 else "float32"
    why = "the recipe says so" if recipe.dtype != "auto" else f"bfloat16 in hardware: {bf16}"
    name = torch.cuda.get_device_name(0)
    return ComputeDevice(
        device="cuda",
        dtype=dtype,
        threads={node.name: node.cpus_per_rank for node in session.nodes}
        if on_cluster
        else {"": 1},
        reasons={
            "device": f"GPU: {name}",
            "dtype": f"{dtype}: {why}",
            **_shares_reason(recipe.rows_per_step, session.nodes),
            **tuning.reasons,
        },
    )


def _cpu_dtype(requested: str) -> tuple[str, str]:
    """bfloat16 products without instructions for them do not finish: a CPU has to be asked."""
    if requested == "float32":
        return "float32", "the recipe says so"
    if requested == "auto":
        return "float32", "bfloat16 is for GPUs"
    if not torch.cpu.get_capabilities().get("avx512_bf16", False):
        raise InputError(
            "dtype: bfloat16 on a CPU without bfloat16 instructions takes forever",
            fix="--set dtype=auto",
        )
    return "bfloat16", "the recipe says so, and this CPU has instructions for it"
