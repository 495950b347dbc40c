"""Checkpoints: whole or absent, on a disk that tears, fills and rots."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as safetensors_save
from tiny import equal
from torch import Tensor

from nanochat import hashed_file
from nanochat.checkpoint import CheckpointFolder, identity_difference, verify_checkpoint
from nanochat.errors import CheckpointError
from nanochat.file_hash import sha256_of
from nanochat.hashed_file import BLOCK_BYTES, write_hashed
from nanochat.tensor_file import safetensors_parts

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "manifest.json")
Usage = namedtuple("Usage", "total used free")


def tensors(step: int, numel: int = 100) -> dict[str, Tensor]:
    return {"a": torch.full((numel,), float(step)), "b.c": torch.tensor(step)}


def save(folder: CheckpointFolder, step: int, numel: int = 100) -> Path:
    state = {"step": step, "identity": {"seed": 1}}
    return folder.save(state, tensors(step, numel), tensors(-step, numel)).path


def names(folder: CheckpointFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


def newest_step(folder: CheckpointFolder) -> int | None:
    checkpoint = folder.newest()
    return None if checkpoint is None else checkpoint.step


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """Holds steps 10 and 20."""
    folder = CheckpointFolder(tmp_path / "run" / "checkpoints")
    save(folder, 10)
    save(folder, 20)
    return folder


def test_what_is_saved_is_loaded(folder: CheckpointFolder) -> None:
    checkpoint = folder.newest()
    assert checkpoint is not None
    assert (checkpoint.step, checkpoint.state["identity"]) == (20, {"seed": 1})
    assert equal(checkpoint.model_tensors(), tensors(20))
    assert equal(checkpoint.optimizer_tensors(), tensors(-20))
    assert names(folder) == ["step-00000010", "step-00000020"]
    assert sorted(path.name for path in checkpoint.path.iterdir()) == sorted(FILES)


def test_no_folder_and_an_empty_one_have_no_checkpoint(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "absent").newest() is None
    assert CheckpointFolder(tmp_path).newest() is None


def test_files_are_those_that_safetensors_writes() -> None:
    named = {
        "wide": torch.randn(3, 5, dtype=torch.float64), "b": torch.randn(7), "a": torch.randn(2, 2),
        "half": torch.randn(9).to(torch.bfloat16), "none": torch.zeros(0, 4),
        "one": torch.tensor(3), "ä": torch.randn(4, 6).T,
    }  # fmt: skip
    expected = safetensors_save({name: tensor.contiguous() for name, tensor in named.items()})
    assert b"".join(safetensors_parts(named)) == expected


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize(
    "size", [0, 1, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 4097]
)
def test_what_is_written_past_the_cache_is_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, direct: bool
) -> None:
    if not direct:  # as on file systems that cannot
        monkeypatch.setattr("nanochat.hashed_file._DIRECT", os.O_DIRECTORY | os.O_CREAT)
    content = bytes(torch.randint(256, (size,), dtype=torch.uint8).numpy())
    cuts = [0, 10, size // 3, size]
    parts = [memoryview(content[a:b]) for a, b in itertools.pairwise(cuts)]
    content = b"".join(parts)
    said = write_hashed(tmp_path / "file", parts)
    assert (tmp_path / "file").read_bytes() == content
    assert said == {"bytes": len(content), "sha256": sha256_of(tmp_path / "file")}


@pytest.fixture
def without_direct(tmp_path: Path) -> Iterator[Path]:
    """A file system that refuses files past the cache, once it has made them."""
    path = tmp_path / "disk"
    path.mkdir()
    try:
        mount = ["mount", "-t", "ramfs", "ramfs", str(path)]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a ramfs here: {getattr(error, 'stderr', error)!r}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_file_is_written_where_none_can_go_past_the_cache(without_direct: Path) -> None:
    said = write_hashed(without_direct / "file", [memoryview(bytes(5000))])
    assert said == {"bytes": 5000, "sha256": sha256_of(without_direct / "file")}


def test_what_the_disk_takes_in_whole_pages_only_is_written_nevertheless(tmp_path: Path) -> None:
    """As what is left of a page after a short write."""
    with hashed_file._open_direct(tmp_path / "file") as file:
        hashed_file._write(file, memoryview(b"some"))
        hashed_file._write(file, memoryview(b" words"))
    assert (tmp_path / "file").read_bytes() == b"some words"


def flip_a_bit(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place if place >= 0 else len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def not_json(path: Path) -> None:
    path.write_bytes(b"\xff\xfe{")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip_a_bit, cut, Path.unlink, not_json])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    folder: CheckpointFolder, damage: Callable[[Path], None], name: str
) -> None:
    path = folder.path / "step-00000020"
    damage(path / name)
    assert verify_checkpoint(path) is None
    assert newest_step(folder) == 10


@pytest.mark.parametrize("name", FILES[:3])
def test_a_file_that_has_grown_is_damaged(folder: CheckpointFolder, name: str) -> None:
    lengthen(folder.path / "step-00000020" / name)
    assert newest_step(folder) == 10


def test_no_single_bit_of_the_manifest_can_be_wrong(folder: CheckpointFolder) -> None:
    path = folder.path / "step-00000020"
    for place in range((path / "manifest.json").stat().st_size):
        flip_a_bit(path / "manifest.json", place)
        assert verify_checkpoint(path) is None, f"byte {place}"
        flip_a_bit(path / "manifest.json", place)
    assert verify_checkpoint(path) is not None


@pytest.mark.parametrize("content", ["[]", "1", "{}", '{"format": 1}', '{"format": 1, "files": 3}'])
def test_a_manifest_of_another_form_is_damaged(folder: CheckpointFolder, content: str) -> None:
    (folder.path / "step-00000020" / "manifest.json").write_text(content)
    assert newest_step(folder) == 10


def test_another_format_is_not_read(folder: CheckpointFolder) -> None:
    manifest = folder.path / "step-00000020" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 2}))
    assert newest_step(folder) == 10


def test_where_all_are_damaged_there_is_none(folder: CheckpointFolder) -> None:
    for name in names(folder):
        cut(folder.path / name / "model.safetensors")
    assert folder.newest() is None


def test_a_damaged_one_is_replaced_by_saving_its_step_again(folder: CheckpointFolder) -> None:
    cut(folder.path / "step-00000020" / "state.json")
    save(folder, 20)
    assert newest_step(folder) == 20


@pytest.mark.parametrize(("keep", "left"), [(1, [30]), (2, [20, 30]), (5, [10, 20, 30])])
def test_prune_keeps_the_newest(folder: CheckpointFolder, keep: int, left: list[int]) -> None:
    save(folder, 30)
    folder.prune(keep, 30)
    assert names(folder) == [f"step-{step:08d}" for step in left]


def test_prune_spares_the_only_whole_one(folder: CheckpointFolder) -> None:
    """A newer folder is torn when an older step is saved after it: it does not count."""
    cut(save(folder, 30) / "model.safetensors")
    save(folder, 25)
    folder.prune(1, 25)
    assert newest_step(folder) == 25


def test_prune_keeps_what_is_newer_and_whole(folder: CheckpointFolder) -> None:
    """It could not be read when the run was resumed, and is there again."""
    save(folder, 30)
    save(folder, 15)
    folder.prune(1, 15)
    assert names(folder) == ["step-00000015", "step-00000020", "step-00000030"]


@pytest.mark.parametrize("keep", [1, 2])
def test_prune_keeps_those_before_where_the_newest_is_torn(
    folder: CheckpointFolder, keep: int
) -> None:
    cut(folder.path / "step-00000020" / "state.json")
    cut(save(folder, 30) / "model.safetensors")
    with pytest.raises(CheckpointError, match="step-00000030: the disk gives back another content"):
        folder.prune(keep, 30)
    assert newest_step(folder) == 10


def test_a_folder_of_another_name_is_no_checkpoint(folder: CheckpointFolder) -> None:
    shutil.copytree(folder.path / "step-00000020", folder.path / "step-00000020.bak")
    assert newest_step(folder) == 20
    folder.prune(1, 20)
    assert names(folder) == ["step-00000020", "step-00000020.bak"]


def test_an_interrupted_save_is_no_checkpoint_and_goes_with_prune_or_the_next_save(
    folder: CheckpointFolder,
) -> None:
    for step in (30, 40):
        shutil.copytree(folder.path / "step-00000020", folder.path / f".partial-step-{step:08d}")
    assert newest_step(folder) == 20
    save(folder, 30)
    assert newest_step(folder) == 30
    folder.prune(5, 30)
    assert names(folder) == ["step-00000010", "step-00000020", "step-00000030"]


def test_too_little_space_is_found_before_anything_is_written(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 2 * (1_000_000 * 4 + 8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, needed))
    save(folder, 30, numel=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, needed - 1_000_000))
    says = rf"needs 8 MB, 7 MB are free at {re.escape(str(folder.path))}"
    with pytest.raises(CheckpointError, match=says):
        save(folder, 40, numel=1_000_000)
    assert newest_step(folder) == 30
    assert names(folder) == ["step-00000010", "step-00000020", "step-00000030"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a small disk here: {getattr(error, 'stderr', error)!r}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("warned", [True, False])
def test_a_disk_that_is_full_costs_the_new_checkpoint_only(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, warned: bool
) -> None:
    """`warned`: the disk says how much is free; else it fills up while the files are written."""
    folder = CheckpointFolder(small_disk / "checkpoints")
    save(folder, 10, numel=300_000)  # 2.4 MB
    if not warned:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, 10**9))
    with pytest.raises(CheckpointError, match=r"2 MB.*checkpoints|checkpoints.*2 MB") as caught:
        save(folder, 20, numel=300_000)
    assert str(folder.path) in str(caught.value)
    assert newest_step(folder) == 10
    assert names(folder) == ["step-00000010"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = CheckpointFolder(tmp_path / "file" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"file/checkpoints/step-00000001"):
        save(folder, 1)


@pytest.mark.parametrize(
    ("saved", "current", "difference"),
    [
        ({}, {}, ""),
        ({"a": 1, "b": "x"}, {"b": "x", "a": 1}, ""),
        ({"seed": 1, "steps": 5}, {"seed": 2, "steps": 5}, "  seed: 1 -> 2"),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, "  a: 1 -> 2\n  b: 1 -> 2"),
        ({"old": 1}, {"new": 2}, "  new: None -> 2\n  old: 1 -> None"),
        ({"a": 1}, {"a": "1"}, "  a: 1 -> 1"),
    ],
)
def test_identity_difference(
    saved: dict[str, Any], current: dict[str, Any], difference: str
) -> None:
    assert identity_difference(saved, current) == difference
