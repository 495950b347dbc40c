"""The parts of a model that are timed: which FLOPs, on which device. Not how fast they are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny import shape

from nanochat import speed
from nanochat.cores import Cores, find_cores, parse_cpus
from nanochat.sizes import (
    ModelConfig,
    attention_flops,
    block_product_flops,
    flops_per_token,
    head_flops,
)
from nanochat.speed import Bench, disk_rate, longest_call_seconds, whole_rows

CPU = torch.device("cpu")


class OneSecond(Bench):
    """Each call is made once and said to take a second, two for the blocks, whose attention is
    taken off: rates are FLOPs."""

    def seconds(self, call: object) -> float:
        assert callable(call)
        call()
        return 4.0 if "_two_blocks" in call.__qualname__ else 1.0


def test_parts_have_the_flops_of_the_formula() -> None:
    model = shape(depth=4)
    dim, tokens = model.dim, 64
    rates = OneSecond(CPU, torch.float32).part_rates(model, tokens)
    gate = model.heads * 12  # of every second layer
    smear = 24 / model.depth
    assert rates.products == pytest.approx(tokens * 6 * (2 * 12 * dim**2 + gate + 2 * smear) / 2.0)
    assert rates.attention == tokens * 12 * dim * model.sequence_length
    assert rates.head == tokens * 6 * dim * model.vocab_size
    square, tall = 5 * 6 * dim**3, 5 * (4 * 4 + 2) * dim**3
    gates = 5 * (4 * model.heads**2 * 12 + 2 * model.heads**3)
    assert rates.muon == 4 * square + 2 * tall + gates
    assert longest_call_seconds(rates, model, tokens) == pytest.approx(4.0)


def test_rates_are_measured_of_real_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MIN_SECONDS", 0.0)
    monkeypatch.setattr(speed, "ARRAY_BYTES", 2**16)
    monkeypatch.setattr(speed, "TABLE", (64, 32))
    bench = Bench(CPU, torch.float32)
    passes = bench.pass_rates(shape(), (64, 128))
    assert passes.keys() == {64, 128}
    found = [*passes.values(), bench.memory_rate(), bench.adamw_rate(), disk_rate(tmp_path)]
    assert all(0 < rate < math.inf for rate in found)
    assert not list(tmp_path.iterdir())


def test_passes_that_would_take_too_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MAX_CALL_SECONDS", 1.5)
    assert OneSecond(CPU, torch.float32).pass_rates(shape(), (64, 128, 256)).keys() == {64}


HYBRID = {  # four fast cores of two CPUs each, four slow ones
    **{f"system/cpu/cpu{n}/topology/thread_siblings_list": f"{n & ~1}-{n | 1}" for n in range(8)},
    **{f"system/cpu/cpu{n}/topology/thread_siblings_list": str(n) for n in range(8, 12)},
    "cpu_core/cpus": "0-7",
    "cpu_atom/cpus": "8-11",
}
TWINS = {  # siblings are half the CPUs apart
    f"system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}" for n in range(8)
}


def machine(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = folder / "sys/devices" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return folder


@pytest.mark.parametrize(
    ("files", "usable", "cores", "counts"),
    [
        (HYBRID, range(12), Cores((*range(12),), (0, 2, 4, 6, 8, 9, 10, 11), (0, 2, 4, 6)),
         [1, 2, 4, 8, 12]),
        (HYBRID, range(1, 7), Cores((*range(1, 7),), (1, 2, 4, 6), ()), [1, 2, 4, 6]),
        (TWINS, range(8), Cores((*range(8),), (0, 1, 2, 3), ()), [1, 2, 4, 8]),
        ({}, (3, 5, 6), Cores((3, 5, 6), (3, 5, 6), ()), [1, 2, 3]),
    ],
    ids=["hybrid", "a part of one", "SMT", "nothing known"],
)  # fmt: skip
def test_cores(
    tmp_path: Path, files: dict[str, str], usable: range, cores: Cores, counts: list[int]
) -> None:
    found = find_cores(usable, machine(tmp_path, files))
    assert found == cores
    assert found.thread_counts(max_threads=99) == counts
    assert found.thread_counts(max_threads=2) == [1, 2]


def test_lists_of_cpus() -> None:
    assert parse_cpus("0-3,8,10-11\n") == (0, 1, 2, 3, 8, 10, 11)
    with pytest.raises(ValueError):
        parse_cpus("\n")


def test_the_parts_of_a_tokens_flops() -> None:
    d4 = ModelConfig(depth=4, head_dim=64, sequence_length=512)
    parts = block_product_flops(d4), attention_flops(d4), head_flops(d4)
    assert parts == (6 * (4 * 12 * 256**2 + 2 * 4 * 12 + 24), 4 * 12 * 256 * 512, 6 * 32_768 * 256)
    assert sum(parts) == flops_per_token(d4) == 75_498_192


def test_passes_are_of_whole_rows() -> None:
    rows = [whole_rows(ModelConfig(depth=4, sequence_length=n), 2048) for n in (512, 768, 4096)]
    assert rows == [2048, 1536, 4096]


def test_a_model_of_one_layer_is_timed_as_one() -> None:
    model = shape(depth=1)
    tokens = model.sequence_length
    rates = OneSecond(CPU, torch.float32).part_rates(model, tokens + 1)
    assert rates.products == pytest.approx(tokens * block_product_flops(model) / (4.0 - 1.0))
