"""The train function on a GPU; passed over where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Recorder, equal, newest_tensors, plan, run

from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset import PreparedData
from nanochat.train import TrainResult, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


def on_gpu(
    data: PreparedData, folder: Path, observer: Recorder, dtype: torch.dtype, **changes: Any
) -> TrainResult:
    device = torch.device("cuda")
    checkpoints = CheckpointFolder(folder)
    return train(plan(**changes), data, checkpoints, observer, device=device, dtype=dtype)


def test_float32_losses_are_the_cpu_s(data: PreparedData, tmp_path: Path) -> None:
    cpu, gpu = Recorder(), Recorder()
    run(plan(), data, tmp_path / "cpu", cpu)
    on_gpu(data, tmp_path / "gpu", gpu, torch.float32)
    assert gpu.of("loss") == pytest.approx(cpu.of("loss"), rel=1e-4)


def test_bfloat16_learns_like_float32(data: PreparedData, tmp_path: Path) -> None:
    exact, short = Recorder(), Recorder()
    on_gpu(data, tmp_path / "exact", exact, torch.float32, steps=40)
    on_gpu(data, tmp_path / "short", short, torch.bfloat16, steps=40)
    assert short.of("loss") == pytest.approx(exact.of("loss"), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stopped_run_goes_on_bit_for_bit(
    data: PreparedData, tmp_path: Path, dtype: torch.dtype
) -> None:
    whole, first, second = Recorder(), Recorder(stop_at=4), Recorder()
    on_gpu(data, tmp_path / "whole", whole, dtype)
    on_gpu(data, tmp_path / "split", first, dtype)
    on_gpu(data, tmp_path / "split", second, dtype)
    assert first.of("loss") + second.of("loss") == whole.of("loss")
    assert equal(newest_tensors(tmp_path / "split"), newest_tensors(tmp_path / "whole"))


def test_a_checkpoint_travels_to_a_cpu(data: PreparedData, tmp_path: Path) -> None:
    whole, gpu, cpu = Recorder(), Recorder(stop_at=4), Recorder()
    run(plan(), data, tmp_path / "whole", whole)
    on_gpu(data, tmp_path / "split", gpu, torch.float32)
    run(plan(), data, tmp_path / "split", cpu)
    assert gpu.of("loss") + cpu.of("loss") == pytest.approx(whole.of("loss"), rel=1e-3)
