"""The helper that other tests trust: results by rank, errors by rank, no process left behind."""

from __future__ import annotations

import multiprocessing
import time

import pytest
import torch
import torch.distributed as dist
from ranks import run_ranks


def total(rank: int, world_size: int, factor: int) -> tuple[int, float]:
    value = torch.tensor(float(rank * factor))
    dist.all_reduce(value)
    return rank, value.item()


def fails_on_one(rank: int, world_size: int) -> None:
    if rank == 1:
        raise KeyError("only here")
    time.sleep(60)


def sleeps(rank: int, world_size: int) -> None:
    time.sleep(60)


def test_ranks_form_a_group_and_answer_in_order() -> None:
    assert run_ranks(2, total, 10) == [(0, 10.0), (1, 10.0)]


def test_an_error_names_its_rank_and_ends_the_others() -> None:
    with pytest.raises(KeyError, match="only here") as caught:
        run_ranks(2, fails_on_one)
    assert "in rank 1:" in caught.value.__notes__[0]
    assert multiprocessing.active_children() == []


def test_ranks_that_take_too_long_are_ended() -> None:
    with pytest.raises(TimeoutError, match=r"ranks \[0\]"):
        run_ranks(1, sleeps, limit_seconds=0.5)
    assert multiprocessing.active_children() == []
