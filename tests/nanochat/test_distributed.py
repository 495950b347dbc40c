"""Prepared rows reach the disk of every machine, whole, as they are needed, over the group."""

from __future__ import annotations

import fcntl
import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ranks import run_ranks

from nanochat.dataset import PreparedData, distributed, rows
from nanochat.dataset.block_log import BlockLog
from nanochat.dataset.manifest import Manifest
from nanochat.dataset.rows import MANIFEST, lock_path
from nanochat.errors import DataError

PIECE_BYTES = 1000  # so that files are several pieces


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def _shared(
    rank: int, world_size: int, folder: Path, *, writes: bool
) -> distributed.DistributedData:
    distributed.PIECE_BYTES = PIECE_BYTES
    cpu = torch.device("cpu")
    return distributed.DistributedData(
        folder, rank=rank, world_size=world_size, writes=writes, device=cpu
    )


def _bring_all(rank: int, world_size: int, folders: list[Path], writes: list[bool]) -> int:
    data = _shared(rank, world_size, folders[rank], writes=writes[rank])
    data.ensure_blocks(data.manifest.blocks)
    return int(data.train_rows.batch(range(len(data.train_rows))).sum())


@pytest.fixture
def folders(data: PreparedData, tmp_path: Path) -> list[Path]:
    """One for each of three ranks; the first has the rows."""
    return [Path(shutil.copytree(data.path, tmp_path / "0")), tmp_path / "1", tmp_path / "2"]


def test_every_machine_gets_every_file_that_is_needed(folders: list[Path]) -> None:
    sums = run_ranks(3, _bring_all, folders, [True, True, True])
    assert files(folders[0]) == files(folders[1]) == files(folders[2])
    assert len(set(sums)) == 1


def _bring_first(rank: int, world_size: int, folders: list[Path]) -> None:
    data = _shared(rank, world_size, folders[rank], writes=True)
    for _ in range(2):
        data.ensure_blocks(data.manifest.validation.blocks_of(1))


def test_what_is_not_needed_stays_where_it_is(data: PreparedData, folders: list[Path]) -> None:
    run_ranks(2, _bring_first, folders)
    assert set(files(folders[1])) == {"tokenizer.json", data.manifest.validation.blocks[0].name}


def test_ranks_of_one_machine_share_its_disk(folders: list[Path]) -> None:
    folders[2] = folders[1]
    run_ranks(3, _bring_all, folders, [True, True, False])
    assert files(folders[1]) == files(folders[0])


def test_what_is_there_is_left_alone(folders: list[Path]) -> None:
    run_ranks(2, _bring_all, folders, [True, True])
    before = {path: path.stat().st_ino for path in folders[1].iterdir()}
    run_ranks(2, _bring_all, folders, [True, True])
    assert {path: path.stat().st_ino for path in folders[1].iterdir()} == before


def test_a_damaged_file_is_replaced_and_only_that(folders: list[Path]) -> None:
    run_ranks(2, _bring_all, folders, [True, True])
    block = folders[1] / "train-00000.rows"
    untouched = (folders[1] / "tokenizer.json").stat().st_ino
    block.write_bytes(bytes(block.stat().st_size))
    run_ranks(2, _bring_all, folders, [True, True])
    assert files(folders[0]) == files(folders[1])
    assert (folders[1] / "tokenizer.json").stat().st_ino == untouched


def test_damage_on_rank_0_ends_every_rank(folders: list[Path]) -> None:
    block = folders[0] / "train-00000.rows"
    block.write_bytes(bytes(block.stat().st_size))
    with pytest.raises(DataError, match=r"train-00000\.rows: damaged"):
        run_ranks(2, _bring_all, folders, [True, True])


def _says(rank: int, world_size: int, folders: list[Path]) -> str:
    try:
        _shared(rank, world_size, folders[rank], writes=True)
    except DataError as error:
        return error.message
    return ""


def test_without_rows_on_rank_0_every_rank_says_so(folders: list[Path]) -> None:
    shutil.rmtree(folders[0])
    said = run_ranks(2, _says, folders)
    assert said[0] == said[1] == f"{folders[0]}: no prepared data here: No such file or directory"


# --- rows that are still being made


def growing(data: PreparedData, folder: Path) -> Manifest:
    """A copy of `data` in `folder` whose blocks to train on are not announced yet: its manifest."""
    shutil.copytree(data.path, folder)
    whole = data.manifest
    begun = replace(whole, complete=False, train=replace(whole.train, blocks=()))
    (folder / MANIFEST).write_bytes(begun.to_json())
    return whole


def _wait_for_rows(rank: int, world_size: int, folders: list[Path], count: int) -> list[int]:
    distributed.WAIT_SECONDS = 0.2
    data = _shared(rank, world_size, folders[rank], writes=True)
    before = len(data.train_rows)
    assert data.wait_for_rows(count, lambda: True)
    data.ensure_blocks(data.manifest.train.blocks)
    return [before, len(data.train_rows), int(data.train_rows.batch([count - 1]).sum())]


def test_ranks_wait_together_for_rows_that_are_still_coming(
    data: PreparedData, tmp_path: Path
) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]
    whole = growing(data, folders[0])
    first, second, *_ = whole.train.blocks

    def prepare() -> None:
        log = BlockLog(folders[0], lambda: None)
        log.append(first)
        time.sleep(3)  # several rounds of waiting
        log.append(second)

    with lock_path(folders[0]).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=prepare)
        thread.start()
        answers = run_ranks(2, _wait_for_rows, folders, first.rows + 1)
        thread.join()
    assert answers[0] == answers[1]
    assert answers[0][0] in (0, first.rows)
    assert answers[0][1] == first.rows + second.rows


def _give_up(rank: int, world_size: int, folders: list[Path]) -> bool:
    distributed.WAIT_SECONDS = 0.2
    data = _shared(rank, world_size, folders[rank], writes=True)
    until = time.monotonic() + 1
    return data.wait_for_rows(1, lambda: time.monotonic() < until)


def test_ranks_stop_waiting_together(data: PreparedData, tmp_path: Path) -> None:
    folders = [tmp_path / "0", tmp_path / "1"]
    growing(data, folders[0])
    with lock_path(folders[0]).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_ranks(2, _give_up, folders) == [False, False]


@pytest.mark.parametrize(
    ("failure", "says"),
    [(None, "the preparation of the text has ended"), ("the hub is away", "the hub is away")],
)
def test_nobody_waits_for_a_preparation_that_has_ended(
    data: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: str | None,
    says: str,
) -> None:
    monkeypatch.setattr(rows, "UNATTENDED_SECONDS", 1.0)
    growing(data, tmp_path / "0")
    if failure:
        content = json.dumps({"message": failure, "fix": None})
        (tmp_path / "0" / "failure.json").write_text(content)
    with pytest.raises(DataError, match=says):
        PreparedData.load(tmp_path / "0").wait_for_rows(1, lambda: True)


def test_who_takes_a_preparation_over_has_a_moment(data: PreparedData, tmp_path: Path) -> None:
    whole = growing(data, tmp_path / "0")

    def take_over() -> None:
        with lock_path(tmp_path / "0").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            BlockLog(tmp_path / "0", lambda: None).append(whole.train.blocks[0])

    thread = threading.Timer(3 * rows.POLL_SECONDS, take_over)
    thread.start()
    assert PreparedData.load(tmp_path / "0").wait_for_rows(1, lambda: True)
    thread.join()
