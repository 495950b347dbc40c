"""Checkpoints that are written beside the steps: on disks that fill, in processes that die."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import Recorder, equal, newest_tensors, plan, run

import nanochat
from nanochat.available_memory import available_bytes
from nanochat.checkpoint import Checkpoint, CheckpointFolder
from nanochat.dataset import PreparedData
from nanochat.errors import CheckpointError, TrainingError
from nanochat.memory import StagingBuffer
from nanochat.optimizer.muon_adamw import MuonAdamW
from nanochat.train import train


@pytest.fixture(scope="module")
def whole(data: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], Path]:
    """Losses of 8 steps without a checkpoint but the last, and that one's folder."""
    observer, folder = Recorder(), tmp_path_factory.mktemp("whole") / "checkpoints"
    run(plan(), data, folder, observer)
    return observer.of("loss"), folder


def saved_steps(observer: Recorder) -> list[int]:
    return [event["step"] for event in observer.events if event["kind"] == "checkpoint"]


class SlowFolder(CheckpointFolder):
    """Writes nothing until it is allowed to."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.allowed = threading.Event()

    def save(self, *arguments: Any) -> Checkpoint:
        assert self.allowed.wait(timeout=30)
        return super().save(*arguments)


class Allowing(Recorder):
    """Allows it at the end of step `at`."""

    def __init__(self, folder: SlowFolder, at: int) -> None:
        super().__init__()
        self.folder, self.at = folder, at

    def step(self, record: dict[str, Any]) -> None:
        super().step(record)
        if record["step"] == self.at:
            self.folder.allowed.set()


def test_steps_go_on_while_a_checkpoint_is_written(
    data: PreparedData, tmp_path: Path, whole: tuple[list[float], Path]
) -> None:
    """What is written is the state of its step, whatever the steps do meanwhile."""
    folder = SlowFolder(tmp_path)
    observer = Allowing(folder, at=5)
    config = plan(checkpoint_every_steps=3)
    options: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    train(config, data, folder, observer, **options)
    assert saved_steps(observer) == [3, 6, 8]
    assert observer.of("loss") == whole[0]
    for step in (6, 8):
        shutil.rmtree(folder.path_of(step))
    again = Recorder()
    run(config, data, tmp_path, again)
    assert again.of("loss") == whole[0][3:]
    assert equal(newest_tensors(tmp_path), newest_tensors(whole[1]))


def test_an_event_says_how_long_the_steps_stood_still(data: PreparedData, tmp_path: Path) -> None:
    observer = Recorder()
    run(plan(checkpoint_every_steps=3), data, tmp_path, observer)
    for event in observer.events:
        if event["kind"] == "checkpoint":
            assert event.keys() == {"kind", "step", "path", "seconds", "stalled"}
            assert event["path"] == f"step-{event['step']:08d}"
            assert 0 <= event["stalled"] <= event["seconds"]
    assert event["stalled"] == event["seconds"]  # the last one: there is nothing left to do


@pytest.mark.parametrize(
    ("available", "why"),
    [
        (10**8, "a copy of its 0.01 GB does not fit into the 0.10 GB of memory that are left"),
        (None, "a copy of its 0.01 GB may not fit into memory: this system does not say how much "
               "is left"),
        (10**9, "there is no memory for a copy of it: [Errno 12] Cannot allocate memory"),
    ],
)  # fmt: skip
def test_without_memory_for_a_copy_it_is_written_between_steps(
    data: PreparedData, tmp_path: Path, whole: tuple[list[float], Path],
    monkeypatch: pytest.MonkeyPatch, available: int | None, why: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("nanochat.async_checkpoint.available_bytes", lambda: available)
    if available == 10**9:
        monkeypatch.setattr("nanochat.memory._fresh_memory", lambda size: mmap.mmap(-1, 2**60))
    observer = Recorder()
    run(plan(checkpoint_every_steps=2), data, tmp_path, observer)
    said = [event["words"] for event in observer.events if event["kind"] == "memory"]
    assert said == [f"steps stand still while a checkpoint is written: {why}"]
    assert saved_steps(observer) == [2, 4, 6, 8]
    saved = [event for event in observer.events if event["kind"] == "checkpoint"]
    assert all(event["stalled"] == event["seconds"] for event in saved)
    assert observer.of("loss") == whole[0]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
import nanochat.checkpoint
from nanochat.dataset import PreparedData
from tiny import Recorder, plan, run

torch.set_num_threads(1)
write, files = nanochat.checkpoint.write_hashed, []

def write_some(path, parts):
    files.append(path)
    if len(files) == 6:  # the optimizer's of the second checkpoint: its model's is there
        with path.open("wb") as file:
            for part in parts:
                file.write(part[: len(part) // 2])
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
    return write(path, parts)

nanochat.checkpoint.write_hashed = write_some
data, folder = map(Path, sys.argv[1:])
run(plan(checkpoint_every_steps=2), PreparedData.load(data), folder, Recorder())
"""


def test_a_process_killed_while_one_is_written_costs_that_one(
    data: PreparedData, tmp_path: Path, whole: tuple[list[float], Path]
) -> None:
    places = (Path(nanochat.__file__).parents[1], Path(__file__).parent)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(data.path), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": ":".join(map(str, places))},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".partial-step-00000004", "step-00000002"]
    observer = Recorder()
    run(plan(checkpoint_every_steps=2), data, tmp_path, observer)
    assert observer.events[0]["step"] == 2
    assert observer.of("loss") == whole[0][2:]
    assert equal(newest_tensors(tmp_path), newest_tensors(whole[1]))
    assert not (tmp_path / ".partial-step-00000004").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 9 MB: a checkpoint has 6."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small disk here: {getattr(error, 'stderr', error)!r}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


class Enlarging(Recorder):
    """Makes the disk larger at the first fault, once it has looked what is there."""

    def __init__(self, disk: Path, folder: CheckpointFolder) -> None:
        super().__init__()
        self.disk, self.folder = disk, folder
        self.there: Checkpoint | None = None

    def event(self, kind: str, **details: Any) -> None:
        super().event(kind, **details)
        if kind == "fault":
            self.there = self.folder.newest()
            enlarge = ["mount", "-o", "remount,size=30m", str(self.disk)]
            subprocess.run(enlarge, check=True, capture_output=True)


@pytest.mark.parametrize("warned", [True, False])
def test_a_disk_that_is_full_costs_the_checkpoint_and_no_step(
    data: PreparedData, small_disk: Path, whole: tuple[list[float], Path],
    monkeypatch: pytest.MonkeyPatch, warned: bool,
) -> None:  # fmt: skip
    """`warned`: the disk says how much is free; else it fills up while the files are written."""
    folder = CheckpointFolder(small_disk / "checkpoints")
    if not warned:
        usage = shutil.disk_usage(small_disk)._replace(free=10**9)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    observer = Enlarging(small_disk, folder)
    run(plan(checkpoint_every_steps=3), data, folder.path, observer)
    assert observer.there is not None and observer.there.step == 3
    faults = [event for event in observer.events if event["kind"] == "fault"]
    assert [(event["what"], event["step"]) for event in faults] == [("checkpoint", 6)]
    assert "6 MB" in faults[0]["message"]
    assert "resume" not in faults[0]["message"]  # it goes on
    assert saved_steps(observer) == [3, 8]
    assert observer.of("loss") == whole[0]
    assert equal(newest_tensors(folder.path), newest_tensors(whole[1]))


def test_a_loss_that_is_no_number_waits_for_what_is_being_written(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The update of step 4 spoils a weight; the checkpoint of step 3 is still on its way."""
    update = MuonAdamW.step

    def spoiling(self: MuonAdamW, step: int) -> float:
        rate = update(self, step)
        if step == 3:
            next(iter(self._matrices.values())).data[0, 0] = float("nan")
        return rate

    monkeypatch.setattr(MuonAdamW, "step", spoiling)
    folder = SlowFolder(tmp_path)
    observer = Recorder()
    threading.Timer(0.5, folder.allowed.set).start()
    says = "the loss of step 5 is nan; the newest checkpoint is of step 3"
    options: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    with pytest.raises(TrainingError, match=says):
        train(plan(checkpoint_every_steps=3), data, folder, observer, **options)
    assert observer.of("step") == [1, 2, 3, 4]
    assert saved_steps(observer) == [3]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    assert all(tensor.isfinite().all() for tensor in newest_tensors(tmp_path).values())


@pytest.mark.parametrize("last", [True, False])
def test_weights_that_are_no_numbers_are_not_written(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    """The loss of step 4 was finite still."""
    update = MuonAdamW.step

    def spoiling(self: MuonAdamW, step: int) -> float:
        rate = update(self, step)
        if step == 3:
            next(iter(self._momentum.values()))[0, 0] = float("inf")
        return rate

    monkeypatch.setattr(MuonAdamW, "step", spoiling)
    observer = Recorder(stop_at=4 if last else None)
    says = "the weights after step 4 are no numbers; the newest checkpoint is of step 2"
    with pytest.raises(TrainingError, match=says):
        run(plan(checkpoint_every_steps=2), data, tmp_path, observer)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


class Rotten(CheckpointFolder):
    """A disk that gives back one wrong byte of what was written at `step`."""

    step = 0

    def save(self, *arguments: Any) -> Checkpoint:
        saved = super().save(*arguments)
        if saved.step == self.step:
            model = saved.path / "model.safetensors"
            content = bytearray(model.read_bytes())
            content[len(content) // 2] ^= 1
            model.write_bytes(content)
        return saved


def test_the_only_whole_one_stays_where_the_newest_is_torn(
    data: PreparedData, tmp_path: Path, whole: tuple[list[float], Path]
) -> None:
    folder, observer = Rotten(tmp_path), Recorder()
    folder.step = 6
    options: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}
    config = plan(checkpoint_every_steps=3, checkpoint_keep=1)
    train(config, data, folder, observer, **options)
    faults = [event for event in observer.events if event["kind"] == "fault"]
    assert [(event["what"], event["step"]) for event in faults] == [("checkpoint", 6)]
    assert "another content than was written" in faults[0]["message"]
    assert saved_steps(observer) == [3, 8]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000008"]

    folder.step = 8
    shutil.rmtree(tmp_path / "step-00000008")
    run(plan(), data, tmp_path, Recorder(stop_at=3))
    with pytest.raises(CheckpointError, match="another content than was written"):
        train(config, data, folder, Recorder(), **options)
    newest = folder.newest()
    assert newest is not None and newest.step == 6


def test_a_copy_is_taken_into_the_same_memory(data: PreparedData) -> None:
    tensors = {
        "a": torch.randn(3, 1000), "b": torch.randn(7).to(torch.bfloat16), "c": torch.tensor(5.0),
    }  # fmt: skip
    kept = StagingBuffer(tensors)
    copy = kept.copy(tensors)
    assert equal(dict(copy), tensors)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    for tensor in tensors.values():
        tensor.add_(1)
    assert equal(dict(copy), before)
    places = {name: tensor.data_ptr() for name, tensor in copy.items()}
    assert {name: tensor.data_ptr() for name, tensor in kept.copy(tensors).items()} == places
    assert equal(dict(copy), tensors)


@pytest.mark.skipif(sys.platform != "linux", reason="large pages are Linux's")
def test_a_copy_is_in_memory_that_may_be_of_large_pages() -> None:
    """Flags of the mapping in the kernel's own list: hg, advised so, and private: none of sh."""
    kept = StagingBuffer({"a": torch.zeros(2**22)})
    (copy,) = kept.copy({"a": torch.ones(2**22)}).values()
    inside, flags = False, ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        word, *rest = line.split()
        if "-" in word and not word.endswith(":"):
            begin, end = (int(each, 16) for each in word.split("-"))
            inside = begin <= copy.data_ptr() < end
        elif inside and word == "VmFlags:":
            flags = " ".join(rest)
    assert flags
    assert "sh" not in flags.split()
    if Path("/sys/kernel/mm/transparent_hugepage").exists():
        assert "hg" in flags.split()


def write_tree(root: Path, files: dict[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def group(folder: str, most: object, used: int, cached: int) -> dict[str, object]:
    """Files of version 2."""
    return {
        f"{folder}/memory.max": most, f"{folder}/memory.current": used,
        f"{folder}/memory.stat": f"anon 7\nfile 9\ninactive_file {cached}",
    }  # fmt: skip


TOP = "sys/fs/cgroup"
MACHINE = {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    1000 kB\nCached: 5 kB"}
VERSION_1 = {
    "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/a\n0::/",
    f"{TOP}/memory/memory.limit_in_bytes": 70_000,
    f"{TOP}/memory/memory.usage_in_bytes": 30_000,
    f"{TOP}/memory/memory.stat": "cache 3\ntotal_inactive_file 2000",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        (MACHINE, 1_024_000),
        ({**MACHINE, "proc/self/cgroup": "0::/a/b", **group(f"{TOP}/a/b", "max", 5, 1)}, 1_024_000),
        (
            {**MACHINE, "proc/self/cgroup": "0::/a/b", **group(f"{TOP}/a/b", "max", 5, 1),
             **group(f"{TOP}/a", 90_000, 50_000, 1000)},
            41_000,
        ),
        ({**MACHINE, "proc/self/cgroup": "0::/", **group(TOP, 90_000, 95_000, 0)}, 0),
        ({**MACHINE, "proc/self/cgroup": "0::/", **group(TOP, 9_000_000, 5, 0)}, 1_024_000),
        ({**MACHINE, **VERSION_1}, 42_000),
    ],
)  # fmt: skip
def test_memory_that_is_left_is_that_of_the_machine_and_of_its_groups(
    tmp_path: Path, files: dict[str, object], expected: int | None
) -> None:
    assert available_bytes(write_tree(tmp_path, files)) == expected
