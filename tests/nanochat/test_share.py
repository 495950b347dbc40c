"""Prepared rows reach the disk of every machine, whole, over the process group."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from ranks import run_ranks

from nanochat.dataset import PreparedData, share
from nanochat.errors import DataError

PIECE_BYTES = 1000  # so that files are several pieces


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _share(rank: int, world_size: int, folders: list[Path], writes: list[bool]) -> str:
    share.PIECE_BYTES = PIECE_BYTES
    options = {"rank": rank, "world_size": world_size, "writes": writes[rank]}
    data = share.share(folders[rank], device=torch.device("cpu"), **options)
    return data.manifest.identity


@pytest.fixture
def folders(data: PreparedData, tmp_path: Path) -> list[Path]:
    """One for each of three ranks; the first has the rows."""
    return [Path(shutil.copytree(data.path, tmp_path / "0")), tmp_path / "1", tmp_path / "2"]


def test_every_machine_gets_every_file(data: PreparedData, folders: list[Path]) -> None:
    identities = run_ranks(3, _share, folders, [True, True, True])
    assert identities == [data.manifest.identity] * 3
    assert files(folders[0]) == files(folders[1]) == files(folders[2])


def test_ranks_of_one_machine_share_its_disk(folders: list[Path]) -> None:
    folders[2] = folders[1]
    run_ranks(3, _share, folders, [True, True, False])
    assert files(folders[1]) == files(folders[0])


def test_what_is_there_is_left_alone(folders: list[Path]) -> None:
    run_ranks(2, _share, folders, [True, True])
    before = {path: path.stat().st_ino for path in folders[1].iterdir()}
    run_ranks(2, _share, folders, [True, True])
    assert {path: path.stat().st_ino for path in folders[1].iterdir()} == before


def test_a_damaged_file_is_replaced_and_only_that(folders: list[Path]) -> None:
    run_ranks(2, _share, folders, [True, True])
    block = folders[1] / "train-00000.rows"
    untouched = (folders[1] / "tokenizer.json").stat().st_ino
    block.write_bytes(bytes(block.stat().st_size))
    run_ranks(2, _share, folders, [True, True])
    assert files(folders[0]) == files(folders[1])
    assert (folders[1] / "tokenizer.json").stat().st_ino == untouched


def test_without_rows_on_rank_0_every_rank_ends(folders: list[Path]) -> None:
    shutil.rmtree(folders[0])
    with pytest.raises(DataError, match="no prepared data here"):
        run_ranks(1, _share, folders, [True])
