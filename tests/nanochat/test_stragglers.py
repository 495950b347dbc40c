"""Slow steps, and who was late."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from tiny import Recorder, plan

import nanochat.async_checkpoint
from nanochat.checkpoint import Checkpoint, CheckpointFolder
from nanochat.dataset import PreparedData
from nanochat.exchange import GradientExchange
from nanochat.model import GPT
from nanochat.stragglers import MIN_STEPS, SETTLING_STEPS, ComputeClock, StepTimes
from nanochat.train import train

USUAL = (1.0, [0.6, 0.9])


def times(steps: int) -> StepTimes:
    """After `steps` usual ones."""
    times = StepTimes()
    for _ in range(steps):
        assert times.add(*USUAL) is None
    return times


@pytest.mark.parametrize(
    ("seconds", "compute", "rank"),
    [
        (1.0, [0.6, 0.9], "not slow"),
        (4.9, [0.6, 4.8], "not slow"),
        (5.1, [0.6, 5.0], 1),
        (5.1, [4.9, 0.9], 0),
        (9.0, [4.5, 5.5], 1),  # both were late, 1 by more
        (9.0, [0.6, 5.0], 1),  # at least half of what it took longer
        (9.0, [0.6, 4.8], None),
        (9.0, [0.6, 0.9], None),
    ],
)
def test_a_step_is_slow_at_five_times_the_median(
    seconds: float, compute: list[float], rank: int | str | None
) -> None:
    slow = times(SETTLING_STEPS + MIN_STEPS).add(seconds, compute)
    if rank == "not slow":
        assert slow is None
    else:
        assert slow == {"seconds": seconds, "median": 1.0, "rank": rank, "compute": compute}


def test_steps_that_settle_in_are_neither_judged_nor_compared_with() -> None:
    settling = StepTimes()
    for _ in range(SETTLING_STEPS):
        assert settling.add(100.0, [100.0, 100.0]) is None
    for _ in range(MIN_STEPS):
        assert settling.add(*USUAL) is None
    assert settling.add(9.0, [8.0, 1.0]) is not None
    assert times(SETTLING_STEPS + MIN_STEPS - 1).add(100.0, [99.0, 1.0]) is None


def test_steps_of_milliseconds_may_be_late() -> None:
    times = StepTimes()
    for _ in range(20):
        times.add(0.01, [0.01])
    assert times.add(1.0, [1.0]) is None
    assert times.add(1.02, [1.02]) is not None


def test_a_clock_leaves_out_what_is_between_stretches() -> None:
    clock = ComputeClock(torch.device("cpu"))
    assert clock.read() == 0
    clock.start()
    clock.stop()
    time.sleep(0.2)
    clock.start()
    clock.stop()
    assert clock.read() < 0.2
    clock.start()
    time.sleep(0.2)
    clock.stop()
    assert clock.read() >= 0.2
    assert clock.read() == 0


LATE_IN, WAITING_IN, SAVED_IN = 11, 13, 15  # steps


def on_two_ranks(rank: int, world_size: int, data_path: Path, folder: Path) -> list[dict[str, Any]]:
    """Rank 1 computes for longer in one step; in another, what is between the ranks is slow; and
    rank 1 has no memory for a copy and saves for long, which is no step of its own."""
    forward, finish = GPT.forward, GradientExchange.finish
    passes, waits = 0, 0

    def late(self: GPT, *arguments: Any, **options: Any) -> Any:
        nonlocal passes
        passes += 1
        if rank == 1 and passes == LATE_IN:
            time.sleep(1.5)
        return forward(self, *arguments, **options)

    def waiting(self: GradientExchange) -> None:
        nonlocal waits
        waits += 1
        if waits == WAITING_IN:
            time.sleep(1.5)
        finish(self)

    class LongSaving(CheckpointFolder):
        def save(self, *arguments: Any) -> Checkpoint:
            if rank == 1:
                time.sleep(1.5)
            return super().save(*arguments)

    if rank == 1:
        nanochat.async_checkpoint.available_bytes = lambda: 0
    GPT.forward, GradientExchange.finish = late, waiting  # type: ignore[method-assign]
    observer = Recorder()
    config = plan(steps=SAVED_IN + 2, evaluate_every_steps=None, checkpoint_every_steps=SAVED_IN)
    train(
        config, PreparedData.load(data_path), LongSaving(folder / str(rank)), observer,
        device=torch.device("cpu"), dtype=torch.float32, rank=rank, world_size=world_size,
    )  # fmt: skip
    return [event for event in observer.events if event["kind"] == "slow"]


def test_the_late_rank_of_a_slow_step_is_named(data: PreparedData, tmp_path: Path) -> None:
    for events in run_ranks(2, on_two_ranks, data.path, tmp_path):  # each rank knows it
        late, waiting = events
        assert (late["step"], late["rank"]) == (LATE_IN, 1)
        assert late["seconds"] >= 1.5 and late["compute"][1] >= 1.5 > late["compute"][0]
        assert (waiting["step"], waiting["rank"]) == (WAITING_IN, None)
