"""What is taken away with a cluster, and what stays for others."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from launcher.provision.purge import (
    LIST_COMMAND,
    InstalledFiles,
    RemovedPath,
    parse_installed,
    plan_purge,
    purge,
    purge_command,
)
from launcher.ssh.fake import FakeConnection

PATHS = [
    "env/aa", "env/bb", "env/bb.flock", "python/3.12-x", "code/old", "code/new",
    "clusters/mine", "clusters/theirs", "ray/mine", "data", "wheels",
]  # fmt: skip
THEIRS = {"env": "bb", "code": "new"}


@pytest.mark.parametrize(
    ("clusters", "stays"),
    [
        ({"mine": {"env": "aa"}}, ["clusters/theirs"]),  # no record of its own: nothing is used
        (
            {"mine": {"env": "aa"}, "theirs": THEIRS},
            ["env/bb", "env/bb.flock", "code/new", "clusters/theirs", "data", "wheels"],
        ),
        (
            {"mine": {"env": "bb"}, "theirs": {**THEIRS, "python": "3.12-x"}},
            ["env/bb", "env/bb.flock", "python/3.12-x", "code/new", "clusters/theirs", "data",
             "wheels"],
        ),
    ],
)  # fmt: skip
def test_what_stays(clusters: dict[str, dict[str, str]], stays: list[str]) -> None:
    removed = plan_purge("mine", InstalledFiles(dict.fromkeys(PATHS, 1024), clusters))
    assert [path for path in PATHS if RemovedPath(path, 1024) not in removed] == stays


def test_parsing() -> None:
    text = (
        '8\tenv/aa\n12\tclusters/c\n--launch-cluster-- clusters/c/cluster.json\n{\n "env": "aa"}\n'
    )
    assert parse_installed(text) == InstalledFiles(
        {"env/aa": 8192, "clusters/c": 12288}, {"c": {"env": "aa"}}
    )
    assert parse_installed("") == InstalledFiles()


def test_nothing_there_is_nothing_done() -> None:
    connection = FakeConnection("one", {"": ""})
    assert purge(connection, "mine") == []
    assert len(connection.ran) == 1


def shell(script: str, home: Path) -> str:
    environment = os.environ | {"HOME": str(home)}
    done = subprocess.run(
        ["sh"], input=script, cwd=home, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make(home: Path, *paths: str) -> None:
    for path in paths:
        file = home / ".launch" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")


def test_a_home_is_as_it_was(tmp_path: Path) -> None:
    """The commands themselves, in a real shell."""
    (tmp_path / "keep").write_text("x")
    make(tmp_path, "env/aa/ready", "code/new/ready", "ray/mine/log", "data/rows", "provision.lock")
    make(tmp_path, "clusters/mine/cluster.json")
    (tmp_path / ".launch/clusters/mine/cluster.json").write_text(json.dumps({"env": "aa"}))
    installed = parse_installed(shell(LIST_COMMAND, tmp_path))
    assert set(installed.paths) == {"env/aa", "code/new", "ray/mine", "data", "clusters/mine"}
    assert all(size > 0 for size in installed.paths.values())
    shell(purge_command(plan_purge("mine", installed)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
    assert shell(LIST_COMMAND, tmp_path) == ""


def test_others_and_strangers_files_stay(tmp_path: Path) -> None:
    make(tmp_path, "env/aa/ready", "env/bb/ready", "clusters/mine/x", "notes", "provision.lock")
    make(tmp_path, "clusters/theirs/cluster.json")
    (tmp_path / ".launch/clusters/theirs/cluster.json").write_text(json.dumps(THEIRS))
    removed = plan_purge("mine", parse_installed(shell(LIST_COMMAND, tmp_path)))
    assert {item.path for item in removed} == {"env/aa", "clusters/mine"}
    shell(purge_command(removed), tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {
        ".launch/clusters/theirs/cluster.json",
        ".launch/env/bb/ready",
        ".launch/notes",
        ".launch/provision.lock",
    }
