"""`launch runs remove` on this machine; test_cluster_upkeep.py removes one from hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from launcher.cli.main import cli
from launcher.errors import InputError, NotFound, RunBusy
from launcher.runs.folder import RunFolder, runs_home, write_json
from nanochat.lock import hold


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    for name in ("old", "new"):
        make_run(runs_home() / name, "local")
    return tmp_path


def make_run(path: Path, cluster: str) -> RunFolder:
    """Failed before its first step, with a file of 1,000 bytes."""
    folder = RunFolder(path)
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / "some").write_bytes(bytes(1000))
    write_json(
        folder.spec_file,
        {"recipe": "d4", "cluster": cluster, "created": 1.0, "steps": 9, "settings": {}},
    )
    return folder


def launch(*arguments: str, typed: str | None = None) -> Result:
    result = CliRunner().invoke(cli, arguments, input=typed, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def left() -> list[str]:
    return sorted(path.name for path in runs_home().iterdir())


def test_runs_are_removed_and_their_names_are_free() -> None:
    document = json.loads(launch("runs", "remove", "old", "local/old", "--yes", "--json").stdout)
    [removed] = document["removed"]
    assert removed["run"] == "old" and removed["bytes"] > 1000
    assert left() == ["new"]
    assert "removed run 'new', 1." in launch("runs", "remove", "new", "--yes").stdout
    assert launch("runs").stdout.startswith("no runs yet")


def test_nothing_is_removed_without_a_yes() -> None:
    with pytest.raises(InputError, match=r"this removes old \(1\.\d+ kB\) for good") as asked:
        launch("runs", "remove", "old")
    assert asked.value.fix == "add --yes"
    assert left() == ["new", "old"]


def test_all_are_found_before_one_is_removed() -> None:
    with pytest.raises(NotFound, match="no run 'odl' is known here"):
        launch("runs", "remove", "old", "odl", "--yes")
    with hold(runs_home() / "new" / "lock"), pytest.raises(RunBusy, match="is at work"):
        launch("runs", "remove", "old", "new", "--yes")
    assert left() == ["new", "old"]


def test_what_was_cut_off_before_it_was_a_run_goes_too() -> None:
    (runs_home() / "torn").mkdir()
    launch("runs", "remove", "torn", "--yes")
    assert left() == ["new", "old"]
    for name in ("..", ".", "old/checkpoints", ""):
        with pytest.raises(NotFound):
            launch("runs", "remove", name, "--yes")
    assert left() == ["new", "old"]


@pytest.mark.parametrize("cluster", ["gone", "cpu2"])  # no file; a shipped one
def test_what_is_here_of_a_cluster_whose_machines_are_not_known_goes_when_told_so(
    home: Path, cluster: str
) -> None:
    mirror = make_run(home / "clusters" / cluster / "runs" / "far", cluster)
    with pytest.raises(InputError) as refused:
        launch("runs", "remove", f"{cluster}/far", "--yes")
    assert "launch runs remove --here" in str(refused.value.fix) and mirror.path.exists()
    launch("runs", "remove", f"{cluster}/far", "far", "--here", "--yes")
    assert not mirror.path.exists() and left() == ["new", "old"]


def test_a_run_of_another_cluster_than_the_one_named_is_refused() -> None:
    with pytest.raises(InputError, match="'gone/old' is a run of gone, --cluster says local"):
        launch("runs", "remove", "gone/old", "--cluster", "local", "--yes")
    assert left() == ["new", "old"]


def test_what_a_cut_off_removal_has_left_goes_with_the_next_one(home: Path) -> None:
    (runs_home() / ".removed-x").mkdir()
    elsewhere = home / "elsewhere"
    (runs_home() / "old").rename(elsewhere)
    (runs_home() / "old").symlink_to(elsewhere)
    launch("runs", "remove", "old", "--yes")
    assert left() == ["new"] and elsewhere.exists()  # a link alone
