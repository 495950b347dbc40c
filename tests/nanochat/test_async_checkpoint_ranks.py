"""Disks of several ranks, of which one is full or slow."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from tiny import Recorder, plan, run

import nanochat.async_checkpoint
from nanochat.checkpoint import Checkpoint, CheckpointFolder
from nanochat.dataset import PreparedData
from nanochat.errors import CheckpointError
from nanochat.exchange import all_reduce_min
from nanochat.train import train

STOP_AT, SLOW_UNTIL = 4, 5  # steps


def faults(observer: Recorder) -> list[tuple[int | None, int]]:
    """Rank, where it is another one, and step."""
    return [
        (event.get("rank"), event["step"]) for event in observer.events if event["kind"] == "fault"
    ]


def on_a_full_disk(rank: int, world_size: int, data_path: Path, folder: Path) -> dict[str, Any]:
    """Runs of which some ranks cannot write: their folder's place is taken. What came of each, its
    faults and how many steps it made. No memory for a copy: it fails between two steps."""
    nanochat.async_checkpoint.available_bytes = lambda: 0
    data, found = PreparedData.load(data_path), {}
    for name, full, stop_at in (
        ("stop", [1], STOP_AT), ("stop of none", [0, 1], STOP_AT),
        ("end", [1], None), ("end of rank 0", [0], None),
    ):  # fmt: skip
        place = folder / name / str(rank)
        place.parent.mkdir(exist_ok=True)
        if rank in full:
            place.write_text("taken")
        observer = Recorder(stop_at)
        options = {"rank": rank, "world_size": world_size}
        try:
            stopped = run(plan(checkpoint_every_steps=3), data, place, observer, **options).stopped
            outcome = "stopped" if stopped else "finished"
        except CheckpointError as error:
            outcome = error.message.partition(" of ")[0]
        found[name] = (outcome, faults(observer), len(observer.records))
        found[f"{name}: reasons"] = {
            event["message"] for event in observer.events if event["kind"] == "fault"
        }
    found["least"] = all_reduce_min([3.5, 2.25][rank], world_size, torch.device("cpu"))
    return found


@pytest.fixture(scope="module")
def full(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(2, on_a_full_disk, data.path, tmp_path_factory.mktemp("full"))


def test_one_rank_that_has_it_is_enough_for_a_stop(full: list[dict[str, Any]]) -> None:
    first, second = (found["stop"] for found in full)
    assert first == ("stopped", [(1, 3), (1, 4)], 4)
    assert second == ("stopped", [(None, 3), (None, 4)], 4)


def test_a_stop_fails_where_none_has_it(full: list[dict[str, Any]]) -> None:
    first, second = (found["stop of none"] for found in full)
    assert first == ("cannot write a checkpoint", [(None, 3), (1, 3)], 4)
    assert second == ("cannot write a checkpoint", [(None, 3), (0, 3)], 4)


def test_at_the_end_rank_0_must_have_it(full: list[dict[str, Any]]) -> None:
    first, second = (found["end"] for found in full)
    assert first == ("finished", [(1, 3), (1, 6), (1, 8)], 8)
    assert second == ("finished", [(None, 3), (None, 6), (None, 8)], 8)
    reasons = [found["end: reasons"] for found in full]
    assert reasons[0] == reasons[1] and all("File exists" in each for each in reasons[0])
    first, second = (found["end of rank 0"] for found in full)
    assert first == ("cannot write a checkpoint", [(None, 3), (None, 6)], 8)
    assert second == ("another rank could not write the checkpoint", [(0, 3), (0, 6)], 8)


def test_the_least_of_all_ranks_is_every_ranks(full: list[dict[str, Any]]) -> None:
    assert [found["least"] for found in full] == [2.25, 2.25]


def on_a_slow_disk(rank: int, world_size: int, data_path: Path, folder: Path) -> list[int]:
    """Steps of this rank's checkpoints. Rank 1 writes none before the end of step SLOW_UNTIL."""
    allowed = threading.Event()

    class Slow(CheckpointFolder):
        def save(self, *arguments: Any) -> Checkpoint:
            assert rank == 0 or allowed.wait(timeout=30)
            return super().save(*arguments)

    class Allowing(Recorder):
        def step(self, record: dict[str, Any]) -> None:
            super().step(record)
            if record["step"] == SLOW_UNTIL:
                allowed.set()

    observer = Allowing()
    train(
        plan(checkpoint_every_minutes=1e-9), PreparedData.load(data_path),
        Slow(folder / str(rank)), observer, device=torch.device("cpu"), dtype=torch.float32,
        rank=rank, world_size=world_size,
    )  # fmt: skip
    return [event["step"] for event in observer.events if event["kind"] == "checkpoint"]


def test_a_checkpoint_that_is_due_waits_for_the_slowest_disk(
    data: PreparedData, tmp_path: Path
) -> None:
    first, second = run_ranks(2, on_a_slow_disk, data.path, tmp_path)
    assert first == second
    assert first[0] == 1 and first[1] > SLOW_UNTIL and first[-1] == 8
