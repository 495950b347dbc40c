"""Gradients between real processes: the sum of all ranks, sent once, the same everywhere."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks
from tiny import SEQUENCE_LENGTH, VOCAB_SIZE, ids, lively, shape

from nanochat.batch_split import split_rows
from nanochat.exchange import GradientExchange, all_gather_int
from nanochat.model import GPT
from nanochat.optimizer.muon_adamw import MuonAdamW
from nanochat.optimizer.schedule import Schedule

CONFIG = shape(depth=3)  # backout takes the middle layer off the last: with 2 they are one
ROWS = 6
STEPS = 5
WEIGHTS = (2.0, 1.0, 3.0)  # of up to 3 ranks
Arrays = dict[str, npt.NDArray[np.float32]]


def backward(
    model: GPT, exchange: GradientExchange, rank: int, world_size: int, *, step: int = 0,
    micro_batch: int = 1,
) -> None:  # fmt: skip
    """This rank's share of a step of 6 rows; the gradients are exchanged."""
    batch = ids(ROWS, SEQUENCE_LENGTH + 1, seed=step)
    shares = [batch[share.start : share.stop] for share in split_rows(ROWS, WEIGHTS[:world_size])]
    parts = shares[rank].split(micro_batch)
    for number, part in enumerate(parts, start=1):
        if number == len(parts):
            exchange.open([share[:, :-1].unique() for share in shares])
        model(part[:, :-1], part[:, 1:], denominator=ROWS * SEQUENCE_LENGTH).backward()
    exchange.finish()


def gradients(model: GPT) -> Arrays:
    return {n: p.grad.numpy().copy() for n, p in model.named_parameters() if p.grad is not None}


def hashes_after_each_step(
    rank: int, world_size: int, steps: int, *, exchanged_with: int
) -> list[list[str]]:
    """After each step, every rank's hash of all parameters."""
    model = lively(CONFIG)
    exchange = GradientExchange(model.parameters(), model.lookup_tables(), exchanged_with)
    optimizer = MuonAdamW(model, tokens_per_step=2**17, schedule=Schedule(STEPS, 1))
    hashes = []
    for step in range(steps):
        backward(model, exchange, rank, world_size, step=step)
        optimizer.step(step)
        content = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
        every: list[str] = [""] * world_size
        dist.all_gather_object(every, hashlib.sha256(content).hexdigest())
        hashes.append(every)
    return hashes


def exercise(rank: int, world_size: int) -> dict[str, Any]:
    """All that the tests below look at, in one life of a process group."""
    found: dict[str, Any] = {}
    for micro_batch in (1, ROWS):
        model = lively(CONFIG)
        exchange = GradientExchange(model.parameters(), model.lookup_tables(), world_size)
        sent: list[int] = []
        real = dist.all_reduce, dist.all_gather

        def sum_counted(tensor: torch.Tensor, **options: Any) -> Any:
            sent.append(tensor.numel())  # noqa: B023 - called within this turn of the loop
            return real[0](tensor, **options)  # noqa: B023

        def gather_counted(every: Any, tensor: torch.Tensor, **options: Any) -> Any:
            sent.append(tensor.numel())  # noqa: B023
            return real[1](every, tensor, **options)  # noqa: B023

        dist.all_reduce, dist.all_gather = sum_counted, gather_counted
        backward(model, exchange, rank, world_size, micro_batch=micro_batch)
        dist.all_reduce, dist.all_gather = real
        found[f"gradients {micro_batch}"] = gradients(model)
        found[f"sent {micro_batch}"] = sent
        found[f"wire {micro_batch}"] = exchange.wire_bytes
    small = exchange.sum(torch.tensor([1.0, rank, 0.5]))
    found["small"] = small.tolist()
    found["small wire"] = exchange.wire_bytes - found[f"wire {ROWS}"]
    found["agreed"] = all_gather_int(10 * rank - 1, world_size, torch.device("cpu"))
    found["hashes"] = hashes_after_each_step(rank, world_size, STEPS, exchanged_with=world_size)
    # Upstream's bug: every rank believes that it is alone, and nothing is summed.
    found["broken hashes"] = hashes_after_each_step(rank, world_size, 1, exchanged_with=1)
    return found


@pytest.fixture(scope="module", params=[2, 3])
def found(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return run_ranks(request.param, exercise)


def assert_ranks_are_equal(steps: list[list[str]]) -> None:
    for step, hashes in enumerate(steps):
        assert len(set(hashes)) == 1, f"ranks differ after step {step}"


def test_the_sum_over_ranks_is_the_gradient_of_the_whole_batch(found: list[dict[str, Any]]) -> None:
    model = lively(CONFIG)
    backward(model, GradientExchange(model.parameters(), (), 1), 0, 1, micro_batch=ROWS)
    whole = gradients(model)
    for rank in found:
        for micro_batch in (1, ROWS):
            summed = rank[f"gradients {micro_batch}"]
            assert summed.keys() == whole.keys()
            for name, expected in whole.items():
                error = np.linalg.norm(summed[name] - expected) / np.linalg.norm(expected)
                assert error < 1e-5, name


def test_parameters_stay_bit_equal_on_all_ranks(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert_ranks_are_equal(rank["hashes"])
    assert len({hashes[0] for hashes in found[0]["hashes"]}) == STEPS  # and go on changing


def test_ranks_that_do_not_sum_are_caught_by_the_same_check(found: list[dict[str, Any]]) -> None:
    with pytest.raises(AssertionError, match="ranks differ after step 0"):
        assert_ranks_are_equal(found[0]["broken hashes"])


def sizes(world_size: int) -> tuple[list[int], list[int]]:
    """Numbers that a rank hands over in a step: of each dense gradient, of each table."""
    batch = ids(ROWS, SEQUENCE_LENGTH + 1)
    shares = split_rows(ROWS, WEIGHTS[:world_size])
    most = max(len(batch[share.start : share.stop, :-1].unique()) for share in shares)
    model = GPT.empty(CONFIG, device="meta")
    tables = set(model.lookup_tables())
    assert len(tables) == 3  # wte and 2 of 3 layers' value embeddings
    dense = [p.numel() for p in model.parameters() if p not in tables]
    return dense, [most * CONFIG.dim] * len(tables)


def test_gradients_travel_once_a_step_however_many_passes_it_has(
    found: list[dict[str, Any]],
) -> None:
    dense, tables = sizes(len(found))
    assert sum(tables) < 0.5 * 3 * VOCAB_SIZE * CONFIG.dim
    for rank in found:
        assert rank["sent 1"] == rank[f"sent {ROWS}"]
        assert rank["wire 1"] == rank[f"wire {ROWS}"]
        assert sorted(rank["sent 1"]) == sorted([*dense, *tables])


def test_wire_bytes_are_those_of_rings(found: list[dict[str, Any]]) -> None:
    """A sum sends 2 (N - 1) / N of a tensor, what is gathered N - 1 times its own part."""
    world_size = len(found)
    share = 2 * (world_size - 1) / world_size
    dense, tables = sizes(world_size)
    for rank in found:
        expected = sum(round(share * 4 * size) for size in dense) + 4 * (world_size - 1) * sum(
            tables
        )
        assert rank["wire 1"] == expected
        assert rank["small wire"] == share * 12


def test_small_sums_and_agreement(found: list[dict[str, Any]]) -> None:
    world_size = len(found)
    for rank in found:
        assert rank["small"] == [world_size, sum(range(world_size)), world_size / 2]
        assert rank["agreed"] == [10 * other - 1 for other in range(world_size)]


def test_one_process_alone_needs_no_group_and_sends_nothing() -> None:
    model = lively(CONFIG)
    exchange = GradientExchange(model.parameters(), (), 1)
    backward(model, exchange, 0, 1)
    assert exchange.sum(torch.tensor([2.0])).tolist() == [2.0]
    assert all_gather_int(7, 1, torch.device("cpu")) == [7]
    assert exchange.wire_bytes == 0
