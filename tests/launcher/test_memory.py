"""Peaks by arithmetic, against those that were measured."""

from __future__ import annotations

import pytest

from launcher.guide.memory import peak_memory
from launcher.guide.public_run import PublicRun
from launcher.guide.public_runs import OUR_CPU, OUR_H100
from nanochat.shares import largest_micro_batch
from nanochat.sizes import ModelConfig, parameter_counts, state_bytes

D8 = ModelConfig(depth=8, sequence_length=1024)


def peak_of(run: PublicRun, device: str, process_bytes: int | None) -> int:
    """As that run was: alone, without checkpoints on the way, passes as training picks them."""
    assert run.tokens_per_step is not None
    length = run.model.sequence_length
    rows = largest_micro_batch(run.tokens_per_step // length, length, device)
    dtype = "bfloat16" if device == "cuda" else "float32"
    peak = peak_memory(
        run.model, rows, device=device, dtype=dtype, keeps_copy=False, process_bytes=process_bytes
    )
    return peak.total


@pytest.mark.parametrize("run", OUR_H100, ids=lambda run: f"d{run.model.depth}")
def test_of_a_gpu(run: PublicRun) -> None:
    """What torch says of its own: without what the driver takes."""
    assert run.peak_bytes is not None
    assert peak_of(run, "cuda", process_bytes=0) == pytest.approx(run.peak_bytes, rel=0.1)


@pytest.mark.parametrize("run", OUR_CPU, ids=lambda run: f"d{run.model.depth}")
def test_of_a_cpu(run: PublicRun) -> None:
    """Resident memory of the whole process."""
    assert run.peak_bytes is not None
    assert peak_of(run, "cpu", process_bytes=None) == pytest.approx(run.peak_bytes, rel=0.1)


def test_a_copy_is_of_weights_and_optimizer_state() -> None:
    with_copy, without = (
        peak_memory(D8, 4, device="cpu", keeps_copy=keeps) for keeps in (True, False)
    )
    assert with_copy.total - without.total == with_copy.copy
    assert with_copy.copy == state_bytes(D8) - 4 * parameter_counts(D8).total
    assert peak_memory(D8, 4, device="cuda").copy == 0  # it is on the host, not on the GPU


def test_activations_grow_with_the_pass_and_nothing_else() -> None:
    one, four = (peak_memory(D8, rows, device="cpu") for rows in (1, 4))
    assert four.activations == 4 * one.activations
    assert four.total - one.total == four.activations - one.activations
