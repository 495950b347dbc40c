"""Peaks by arithmetic, against those that were measured."""

from __future__ import annotations

import pytest

from launcher.config.recipe import load_recipe
from launcher.planner.memory import peak_memory
from launcher.planner.public_runs import PublicRun, public_run
from nanochat.batch_split import largest_micro_batch
from nanochat.sizes import ModelConfig, parameter_counts, state_bytes

ON_CPUS = [public_run(f"epyc-d{depth}") for depth in (4, 8, 12)]
ON_GPUS = [public_run(f"h100-d{depth}") for depth in (4, 8, 12, 20, 24)]
D8 = ModelConfig(depth=8, sequence_length=1024)


def peak_of(run: PublicRun, device: str, process_bytes: int | None) -> int:
    """As that run was: alone, without checkpoints on the way, passes as training picks them."""
    assert run.tokens_per_step is not None
    length = run.model.sequence_length
    rows = largest_micro_batch(run.tokens_per_step // length, length, device)
    dtype = "bfloat16" if device == "cuda" else "float32"
    peak = peak_memory(
        run.model, rows, device=device, dtype=dtype, passes=run.tokens_per_step // length // rows,
        keeps_copy=False, process_bytes=process_bytes,
    )  # fmt: skip
    return peak.total


@pytest.mark.parametrize("run", ON_GPUS, ids=lambda run: f"d{run.model.depth}")
def test_of_a_gpu(run: PublicRun) -> None:
    """What torch says of its own: without what the driver takes."""
    assert run.peak_bytes is not None
    assert peak_of(run, "cuda", process_bytes=0) == pytest.approx(run.peak_bytes, rel=0.1)


@pytest.mark.parametrize("run", ON_CPUS, ids=lambda run: f"d{run.model.depth}")
def test_of_a_cpu(run: PublicRun) -> None:
    """Resident memory of the whole process, which was not one of Ray's."""
    assert run.peak_bytes is not None
    assert peak_of(run, "cpu", process_bytes=250_000_000) == pytest.approx(run.peak_bytes, rel=0.1)


def test_a_copy_is_of_weights_and_optimizer_state() -> None:
    with_copy, without = (
        peak_memory(D8, 4, device="cpu", passes=1, keeps_copy=keeps) for keeps in (True, False)
    )
    assert with_copy.total - without.total == with_copy.copy
    assert with_copy.copy == state_bytes(D8) - 4 * parameter_counts(D8).total
    assert (
        peak_memory(D8, 4, device="cuda", passes=1).copy == 0
    )  # it is on the host, not on the GPU


def test_activations_grow_with_the_pass_and_nothing_else() -> None:
    one, four = (peak_memory(D8, rows, device="cpu", passes=2) for rows in (1, 4))
    assert four.activations == 4 * one.activations
    more = four.activations - one.activations
    assert four.total - one.total == more + four.holes - one.holes == pytest.approx(1.5 * more)


def test_a_single_pass_has_no_gradients_of_others() -> None:
    one, two = (peak_memory(D8, 4, device="cpu", passes=passes) for passes in (1, 2))
    assert one.gradients == 0 and two.gradients == 4 * parameter_counts(D8).total


# GB of Ray's workers (VmHWM) without checkpoints on the way, steps of 4,096 tokens, as
# tests/bench/peaks.py --set micro_batch=N has them.
@pytest.mark.parametrize(
    ("depth", "micro_batch", "gigabytes"),
    [(4, 8, 1.87), (4, 4, 1.87), (4, 2, 1.64), (8, 4, 4.64), (8, 2, 4.41), (12, 2, 8.54),
     (12, 1, 8.24)],
)  # fmt: skip
def test_of_rays_workers(depth: int, micro_batch: int, gigabytes: float) -> None:
    model = load_recipe(f"d{depth}").recipe.model
    passes = 4096 // model.sequence_length // micro_batch
    peak = peak_memory(model, micro_batch, device="cpu", passes=passes, keeps_copy=False)
    assert peak.total == pytest.approx(gigabytes * 1e9, rel=0.06)
