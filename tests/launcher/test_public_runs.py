"""What is public of speeds and bits per byte: as its sources have it."""

from __future__ import annotations

import pytest

from launcher.planner.public_runs import PublicRun, optimum_range, public_run, public_runs
from nanochat.sizes import flops_per_token

SPEEDS = [  # gpu_model, depth, precision, windows, tokens per second, basis
    ("NVIDIA GeForce RTX 4070", 8, "bfloat16", "SSSL", 103_600, "logged"),
    ("NVIDIA GeForce RTX 4070", 12, "bfloat16", "L", 55_700, "logged"),
    ("NVIDIA GeForce RTX 3090", 12, "bfloat16", "SSSL", 39_963, "logged"),
    ("NVIDIA GeForce RTX 4090", 20, "bfloat16", "L", 43_200, "derived"),
    ("NVIDIA GeForce RTX 5090", 24, "float8", "L", 23_300, "derived"),
    ("AMD Instinct MI300X", 24, "bfloat16", "L", 67_700, "logged"),
    ("AMD Instinct MI300X", 24, "float8", "L", 81_600, "logged"),
    ("AMD Instinct MI300X", 24, "float8", "SSSL", 98_500, "logged"),
    ("NVIDIA H100 80GB HBM3", 4, "bfloat16", "L", 38_600, "logged"),
    ("NVIDIA H100 80GB HBM3", 24, "bfloat16", "L", 65_700, "logged"),
    (None, 4, "float32", "SSSL", 122, "logged"),
    (None, 8, "float32", "SSSL", 56, "logged"),
]


@pytest.mark.parametrize(("gpu", "depth", "precision", "windows", "speed", "basis"), SPEEDS)
def test_speed(
    gpu: str | None, depth: int, precision: str, windows: str, speed: int, basis: str
) -> None:
    found = [
        (run.tokens_per_second, run.basis)
        for run in public_runs()
        if (run.gpu_model, run.model.depth, run.precision) == (gpu, depth, precision)
        and run.model.window_pattern == windows
    ]
    assert (speed, basis) in found


BITS = [  # depth, hardware, text, tokens, bits per byte
    (8, "RTX 4070, 12 GB", "ClimbMix", 32_768_000, 1.1774),
    (8, "RTX 4070, 12 GB", "ClimbMix", 163_840_000, 0.9910),
    (12, "RTX 4070, 12 GB", "FineWeb-EDU", 655_360_000, 0.935),
    (12, "RTX 4070, 12 GB", "ClimbMix", 8_519_680_000, 0.7800),
    (12, "RTX 4070, 12 GB", "ClimbMix", 13_107_200_000, 0.853),
    (24, "8 H100, 80 GB each", "FineWeb-EDU", 8_757_706_752, 0.74833),
    (24, "8 H100, 80 GB each", "ClimbMix", 6_933_200_928, 0.71854),
]


@pytest.mark.parametrize(("depth", "hardware", "text", "tokens", "val_bpb"), BITS)
def test_bits_per_byte(depth: int, hardware: str, text: str, tokens: int, val_bpb: float) -> None:
    found = [
        run.bpb_at(tokens)
        for run in public_runs()
        if (run.model.depth, run.hardware, run.text) == (depth, hardware, text)
        and tokens in [validation.tokens for validation in run.bits_per_byte]
    ]
    assert found == [val_bpb]


def test_the_long_d12_ended_worse_than_its_best() -> None:
    run = public_run("rtx4070-d12-resumed")
    assert (run.best.val_bpb, run.last.val_bpb) == (0.78, 0.853)


def test_no_mi300x_has_bits_per_byte() -> None:
    runs = [run for run in public_runs() if run.hardware.startswith("MI300X")]
    assert len(runs) == 3 and not any(run.bits_per_byte for run in runs)


@pytest.mark.parametrize("run", public_runs(), ids=lambda run: f"{run.source}, d{run.model.depth}")
def test_every_run_has_a_source_and_can_be_true(run: PublicRun) -> None:
    assert run.source
    assert run.tokens_per_second is not None or run.bits_per_byte
    assert run.text or not run.bits_per_byte
    if run.tokens_per_second is not None:
        slowest, fastest = run.slowest or 0, run.fastest or 1e9
        assert slowest <= run.tokens_per_second <= fastest
        # dense peak of a H100 or MI300X with bfloat16 or float8: 0.99 to 2.6 PFLOP/s
        assert run.tokens_per_second * flops_per_token(run.model) < 2.6e15 * run.devices


def test_the_public_optimum() -> None:
    assert optimum_range() == (10.3, 11.2)
