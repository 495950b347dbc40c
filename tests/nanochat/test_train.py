"""The training function: what it reports, how it stops, resumes, and stays the same run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_ranks
from tiny import SEQUENCE_LENGTH, Recorder, equal, newest_tensors, plan, run, shape

import nanochat
from nanochat.batch_split import largest_micro_batch
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset import PreparedData, RowSampler
from nanochat.errors import BatchSplitError, CheckpointError, IdentityError, TrainingError
from nanochat.train import TrainResult

KEYS = {"step", "tokens", "loss", "lr", "step_seconds", "tokens_per_second", "wire_bytes"}
STOP_AT = 4


class Finished:
    """A run and what came of it."""

    def __init__(self, data: PreparedData, folder: Path, **changes: Any) -> None:
        self.observer = Recorder()
        self.folder = folder
        self.result: TrainResult = run(plan(**changes), data, folder, self.observer)
        self.losses: list[float] = self.observer.of("loss")


@pytest.fixture(scope="module")
def whole(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """8 steps without interruption."""
    return Finished(data, tmp_path_factory.mktemp("whole") / "checkpoints")


def test_records_have_the_keys_of_the_contract(whole: Finished) -> None:
    records = whole.observer.records
    assert whole.observer.of("step") == list(range(1, 9))
    for record in records:
        evaluated = record["step"] in (3, 6, 8)
        assert record.keys() == KEYS | ({"val_bpb"} if evaluated else set())
        assert record["tokens"] == record["step"] * 4 * SEQUENCE_LENGTH
        assert record["tokens_per_second"] == pytest.approx(
            4 * SEQUENCE_LENGTH / record["step_seconds"], rel=0.01
        )
        assert record["wire_bytes"] == 0
    peak = 0.02 * (4 * SEQUENCE_LENGTH / 2**19) ** 0.5
    rates = [0.5, 1, 1, 1, 0.81, 0.62, 0.43, 0.24]  # 2 steps up, 5 down
    assert whole.observer.of("lr") == pytest.approx([peak * rate for rate in rates])
    json.dumps(records)


def test_events_and_result(whole: Finished) -> None:
    evaluations = [e for e in whole.observer.events if e["kind"] == "evaluate"]
    assert [event["step"] for event in evaluations] == [0, 3, 6, 8]
    in_records = [r["val_bpb"] for r in whole.observer.records if "val_bpb" in r]
    assert [event["val_bpb"] for event in evaluations[1:]] == in_records
    assert whole.observer.kinds()[-1] == "checkpoint"
    assert whole.result == TrainResult(8, False, whole.losses[-1], in_records[-1])


def test_the_loss_falls_on_real_text(data: PreparedData, tmp_path: Path) -> None:
    longer = Finished(data, tmp_path, steps=40, tokens_per_step=16 * SEQUENCE_LENGTH)
    start, *_, end = longer.losses
    assert start == pytest.approx(6.24, abs=0.06)  # ln 512
    assert end < start - 0.6
    first, *_, last = (e["val_bpb"] for e in longer.observer.events if e["kind"] == "evaluate")
    assert last < 0.9 * first


def test_before_training_only_a_sample_is_run(
    data: PreparedData, tmp_path: Path, whole: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanochat.train.UNTRAINED_TOKENS", SEQUENCE_LENGTH)
    sampled = Finished(data, tmp_path)
    first, *rest = (e["val_bpb"] for e in sampled.observer.events if e["kind"] == "evaluate")
    before, *after = (e["val_bpb"] for e in whole.observer.events if e["kind"] == "evaluate")
    assert first == pytest.approx(before, rel=0.01)
    assert first != before
    assert rest == after


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_passes_of_any_size_give_the_same_losses(
    data: PreparedData, tmp_path: Path, whole: Finished, micro_batch: int
) -> None:
    split = Finished(data, tmp_path, micro_batch=micro_batch)
    assert split.losses == pytest.approx(whole.losses, rel=5e-6)


def test_a_stopped_run_goes_on_bit_for_bit(
    data: PreparedData, tmp_path: Path, whole: Finished
) -> None:
    first, second = Recorder(stop_at=STOP_AT), Recorder()
    stopped = run(plan(), data, tmp_path, first)
    assert (stopped.steps, stopped.stopped, len(first.records)) == (STOP_AT, True, STOP_AT)
    assert first.kinds()[-2:] == ["checkpoint", "stop"]
    result = run(plan(), data, tmp_path, second)
    assert second.events[0] == {"kind": "resume", "step": 4, "seconds": pytest.approx(0, abs=5)}
    assert second.of("step") == [5, 6, 7, 8]
    assert first.of("loss") + second.of("loss") == whole.losses
    assert result == whole.result
    assert equal(newest_tensors(tmp_path), newest_tensors(whole.folder))


def test_a_finished_run_is_not_trained_again(
    data: PreparedData, tmp_path: Path, whole: Finished
) -> None:
    shutil.copytree(whole.folder, tmp_path / "copy")
    again = Recorder()
    assert run(plan(), data, tmp_path / "copy", again) == whole.result
    assert (again.records, again.kinds()) == ([], ["resume"])


def test_a_torn_checkpoint_costs_the_steps_since_the_one_before(
    data: PreparedData, tmp_path: Path, whole: Finished
) -> None:
    run(plan(checkpoint_every_steps=3), data, tmp_path, Recorder(stop_at=7))
    (tmp_path / "step-00000007" / "optimizer.safetensors").write_bytes(b"torn")
    observer = Recorder()
    run(plan(checkpoint_every_steps=3), data, tmp_path, observer)
    assert observer.of("step") == [7, 8]
    assert observer.of("loss") == whole.losses[6:]


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"checkpoint_every_steps": 3}, [3, 6, 8]),
        ({"checkpoint_every_steps": 3, "checkpoint_keep": 2}, [6, 8]),
        ({"checkpoint_every_minutes": 60}, [8]),
        ({}, [8]),
    ],
)
def test_when_checkpoints_are_written(
    data: PreparedData, tmp_path: Path, changes: dict[str, Any], steps: list[int]
) -> None:
    run(plan(**changes), data, tmp_path, Recorder())
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"step-{s:08d}" for s in steps]


def test_minutes_do_not_ask_for_a_checkpoint_while_one_is_written(
    data: PreparedData, tmp_path: Path, whole: Finished
) -> None:
    observer = Recorder()
    run(plan(checkpoint_every_minutes=1e-9), data, tmp_path, observer)
    steps = [event["step"] for event in observer.events if event["kind"] == "checkpoint"]
    assert (steps[0], steps[-1]) == (1, 8)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [f"step-{s:08d}" for s in steps]
    assert equal(newest_tensors(tmp_path), newest_tensors(whole.folder))


def test_a_rank_that_does_not_save_writes_nothing(data: PreparedData, tmp_path: Path) -> None:
    observer = Recorder()
    run(plan(steps=2), data, tmp_path / "checkpoints", observer, saves=False)
    assert not (tmp_path / "checkpoints").exists()
    assert "checkpoint" not in observer.kinds()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"steps": 9}, ["steps: 8 -> 9"]),
        ({"seed": 7}, ["seed: 42 -> 7"]),
        ({"tokens_per_step": 256, "warmup_steps": 0}, ["step: 128 -> 256", "warmup_steps: 2 -> 0"]),
        ({"model": shape(depth=3)}, ["model.depth: 2 -> 3"]),
        ({"model": shape(window_pattern="SL")}, ["model.window_pattern: L -> SL"]),
        ({"steps": 9, "extended_from": (7,)}, ["steps: 8 -> 9"]),
        ({"steps": 9, "extended_from": (8,), "seed": 7}, ["seed: 42 -> 7"]),
        ({"steps": 9, "extended_from": (8,), "warmup_steps": 3}, ["warmup_steps: 2 -> 3"]),
    ],
)
def test_another_runs_checkpoint_is_refused(
    data: PreparedData, whole: Finished, changes: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(IdentityError) as caught:
        run(plan(**changes), data, whole.folder, Recorder())
    assert all(part in str(caught.value) for part in says)
    assert "checkpoint of step 8" in str(caught.value)
    assert str(caught.value).count("->") == len(says)


def test_a_run_that_was_openly_prolonged_goes_on_from_its_checkpoint(
    data: PreparedData, tmp_path: Path, whole: Finished
) -> None:
    shutil.copytree(whole.folder, tmp_path / "copy")
    for steps, before in ((10, (8,)), (11, (8, 10))):
        observer = Recorder()
        longer = plan(steps=steps, extended_from=before)
        assert run(longer, data, tmp_path / "copy", observer).steps == steps
        assert observer.of("step") == list(range(before[-1] + 1, steps + 1))
    with pytest.raises(IdentityError, match="steps: 11 -> 8"):
        run(plan(), data, tmp_path / "copy", Recorder())


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("data", {"identity": "another"}),
        ("tokenizer", {"tokenizer_sha256": "another"}),
        ("packing_version", {"packing_version": "another"}),
    ],
)
def test_a_checkpoint_of_other_data_is_refused(
    data: PreparedData, whole: Finished, key: str, changes: dict[str, Any]
) -> None:
    other = PreparedData(data.path, replace(data.manifest, **changes))
    with pytest.raises(IdentityError, match=f"  {key}: {data.identity()[key]} -> another"):
        run(plan(), other, whole.folder, Recorder())


def test_what_does_not_change_the_run_may_change(
    data: PreparedData, tmp_path: Path, whole: Finished
) -> None:
    run(plan(), data, tmp_path, Recorder(stop_at=STOP_AT))
    observer = Recorder()
    changes = {"evaluate_every_steps": None, "checkpoint_every_steps": 1, "micro_batch": 4}
    run(plan(**changes), data, tmp_path, observer)
    assert observer.of("loss") == pytest.approx(whole.losses[STOP_AT:], rel=1e-6)


class Unblocking(Recorder):
    """Makes room for checkpoints once told of the first fault."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act

    def event(self, kind: str, **details: Any) -> None:
        super().event(kind, **details)
        if kind == "fault" and self.kinds().count("fault") == 1:
            self._act()


@pytest.mark.parametrize("repaired", [True, False])
def test_a_checkpoint_that_fails_in_the_middle_is_a_fault_and_at_the_end_an_error(
    data: PreparedData, tmp_path: Path, whole: Finished, repaired: bool
) -> None:
    blocked = tmp_path / "checkpoints"
    blocked.write_text("a file where the folder should be")
    observer = Unblocking(blocked.unlink if repaired else lambda: None)
    changed = plan(checkpoint_every_steps=3)
    if repaired:
        run(changed, data, blocked, observer)
        assert [path.name for path in sorted(blocked.iterdir())] == [
            "step-00000006",
            "step-00000008",
        ]
    else:
        with pytest.raises(CheckpointError, match="cannot write a checkpoint of 6 MB"):
            run(changed, data, blocked, observer)
    assert observer.of("loss") == whole.losses
    faults = [event for event in observer.events if event["kind"] == "fault"]
    assert [event["step"] for event in faults] == ([3] if repaired else [3, 6])
    assert faults[0]["what"] == "checkpoint"
    assert str(blocked) in faults[0]["message"]


def test_a_loss_that_is_no_number_ends_the_run(data: PreparedData, tmp_path: Path) -> None:
    run(plan(), data, tmp_path, Recorder(stop_at=2))
    folder = CheckpointFolder(tmp_path)
    checkpoint = folder.newest()
    assert checkpoint is not None
    weights = checkpoint.model_tensors()
    weights["lm_head.weight"][3, 3] = float("nan")
    folder.save(checkpoint.state, weights, checkpoint.optimizer_tensors())
    observer = Recorder()
    with pytest.raises(TrainingError, match="loss of step 3 is nan"):
        run(plan(checkpoint_every_steps=1), data, tmp_path, observer)
    assert observer.records == []
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


@pytest.mark.parametrize(
    ("rows", "length", "expected"),
    [(4, 32, 4), (256, 32, 128), (1, 8192, 1), (6, 1024, 3), (7, 1024, 4), (8, 512, 8)],
)
def test_micro_batches_fill_a_pass_evenly(rows: int, length: int, expected: int) -> None:
    assert largest_micro_batch(rows, length, "cpu") == expected


def on_two_ranks(rank: int, world_size: int, data_path: Path, folder: Path) -> dict[str, Any]:
    """A whole run; a stopped one, resumed after rank 1 lost its disk; one that must be refused."""
    data = PreparedData.load(data_path)
    share = {"rank": rank, "world_size": world_size}
    complete, before, after = Recorder(), Recorder(stop_at=STOP_AT if rank == 0 else 2), Recorder()
    run(plan(), data, folder / "whole" / str(rank), complete, **share)
    own = folder / "stopped" / str(rank)
    run(plan(), data, own, before, **share)
    if rank == 1:
        shutil.rmtree(own)
    resumed = run(plan(), data, own, after, **share)
    if rank == 1:
        shutil.rmtree(folder / "whole" / "1")
    with pytest.raises(IdentityError) as caught:
        run(plan(seed=7), data, folder / "whole" / str(rank), Recorder(), **share)
    return {
        "records": complete.records,
        "before": before.of("loss"),
        "after": after.of("loss"),
        "events": after.kinds(),
        "result": resumed,
        "refused": str(caught.value),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def two_ranks(data: PreparedData, folder: Path) -> list[dict[str, Any]]:
    return run_ranks(2, on_two_ranks, data.path, folder)


def losses(records: list[dict[str, Any]]) -> list[float]:
    return [record["loss"] for record in records]


def test_two_ranks_train_as_one(two_ranks: list[dict[str, Any]], whole: Finished) -> None:
    first, second = (rank["records"] for rank in two_ranks)
    assert losses(first) == losses(second)
    assert losses(first) == pytest.approx(whole.losses, rel=5e-6)
    bpb = [[r["val_bpb"] for r in records if "val_bpb" in r] for records in (first, second)]
    assert bpb[0] == bpb[1]
    assert bpb[0][-1] == pytest.approx(whole.result.val_bpb, rel=5e-6)


def test_two_ranks_report_what_they_sent(
    two_ranks: list[dict[str, Any]], whole: Finished, data: PreparedData
) -> None:
    """All dense gradients, and of tables as many rows as the rank with more of them touches."""
    weights = CheckpointFolder(whole.folder).newest()
    assert weights is not None
    tensors = weights.model_tensors()
    tables = [name for name in tensors if name.startswith(("transformer.wte", "value_embeds"))]
    dense = sum(tensor.numel() for name, tensor in tensors.items() if name not in tables)
    order = RowSampler(plan().seed, data.train_rows.block_rows)
    for rank in two_ranks:
        for step, record in enumerate(rank["records"]):
            halves = data.train_rows.batch(order.rows(4 * step, 4 * step + 4)).reshape(2, 2, -1)
            most = max(len(np.unique(half[:, :-1])) for half in halves)
            rows = most * shape().dim * len(tables)
            assert record["wire_bytes"] == 4 * (dense + rows) + 4 * (4 + 2 * 2)


def uneven(rank: int, world_size: int, data_path: Path, folder: Path) -> dict[str, Any]:
    """Runs of three ranks: equal, and with other shares of the four rows of a step."""
    data, found = PreparedData.load(data_path), {}
    for name, weights in (("equal", None), ("last", [1, 1, 2]), ("first", [20, 1, 1])):
        observer = Recorder()
        options = {"rank": rank, "world_size": world_size, "weights": weights}
        if name == "first":
            with pytest.raises(BatchSplitError, match="4 rows per step leave rank 1 none"):
                run(plan(), data, folder / name / str(rank), observer, **options)
            observer = Recorder()
            changed = plan(tokens_per_step=22 * SEQUENCE_LENGTH, steps=2, warmup_steps=0)
            run(changed, data, folder / name / str(rank), observer, **options)
        else:
            run(plan(), data, folder / name / str(rank), observer, **options)
        found[name] = observer.records
    return found


def test_uneven_shares_train_as_even_ones(
    data: PreparedData, folder: Path, whole: Finished, tmp_path: Path
) -> None:
    ranks = run_ranks(3, uneven, data.path, folder / "uneven")
    one = Finished(data, tmp_path, tokens_per_step=22 * SEQUENCE_LENGTH, steps=2, warmup_steps=0)
    for name, expected in (("equal", whole), ("last", whole), ("first", one)):
        for found in ranks:
            assert losses(found[name]) == pytest.approx(expected.losses, rel=5e-6)
            assert losses(found[name]) == losses(ranks[0][name])
            assert found[name][-1]["val_bpb"] == pytest.approx(expected.result.val_bpb, rel=5e-6)
        tensors = [newest_tensors(folder / "uneven" / name / str(rank)) for rank in range(3)]
        assert equal(tensors[0], tensors[1]) and equal(tensors[0], tensors[2])


def test_two_ranks_hold_the_same_bits_after_a_loss_of_one_disk(
    two_ranks: list[dict[str, Any]], folder: Path
) -> None:
    complete = newest_tensors(folder / "whole" / "0")
    for rank, found in enumerate(two_ranks):
        assert equal(newest_tensors(folder / "stopped" / str(rank)), complete)
        assert found["before"] + found["after"] == losses(found["records"])
        assert len(found["before"]) == STOP_AT  # rank 0 decides when to stop
        assert found["events"][0] == "resume"
    assert two_ranks[0]["result"] == two_ranks[1]["result"]


def test_every_rank_refuses_what_one_refuses(two_ranks: list[dict[str, Any]]) -> None:
    assert "seed: 42 -> 7" in two_ranks[0]["refused"]
    assert "checkpoint of step 8" in two_ranks[1]["refused"]


TORCHRUN_SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
import torch.distributed as dist
from nanochat.dataset import PreparedData
from tiny import Recorder, plan, run

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, observer = dist.get_rank(), Recorder()
run(plan(), PreparedData.load(Path(sys.argv[1])), Path(sys.argv[2], str(rank)), observer,
    rank=rank, world_size=dist.get_world_size())
Path(sys.argv[2], f"losses-{rank}.json").write_text(json.dumps(observer.of("loss")))
dist.destroy_process_group()
"""


def test_torchrun_runs_the_same_function(
    data: PreparedData, tmp_path: Path, two_ranks: list[dict[str, Any]]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(TORCHRUN_SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    places = (Path(nanochat.__file__).parents[1], Path(__file__).parent)
    finished = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
            "--master-addr", "127.0.0.1", "--master-port", port,
            str(script), str(data.path), str(tmp_path),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    for rank in range(2):
        found = json.loads((tmp_path / f"losses-{rank}.json").read_text())
        assert found == losses(two_ranks[0]["records"])
    assert torch.equal(*(newest_tensors(tmp_path / r)["lm_head.weight"] for r in ("0", "1")))
