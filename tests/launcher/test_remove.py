"""`launch runs remove` on this machine; test_cluster_upkeep.py removes one from hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from records import make_folder

from launcher.cli.main import cli
from launcher.errors import CommandFailed, InputError, NotFound, RunBusy
from launcher.remote.remove import RemoteRemoval
from launcher.runs.folder import RunFolder, runs_home
from launcher.ssh.fake import FakeConnection
from launcher.ssh.protocol import Completed
from nanochat.lock import hold_lock


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    for name in ("old", "new"):
        make_run(runs_home() / name, "local")
    return tmp_path


def make_run(path: Path, cluster: str) -> RunFolder:
    """Failed before its first step, with a file of 1,000 bytes."""
    folder = make_folder(path, cluster=cluster)
    folder.checkpoints.mkdir()
    (folder.checkpoints / "some").write_bytes(bytes(1000))
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
    with hold_lock(runs_home() / "new" / "lock"), pytest.raises(RunBusy, match="is at work"):
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


def test_what_is_asked_says_what_stays_where(home: Path) -> None:
    """--here tells a cluster's run from one of this machine, of which nothing stays."""
    make_run(home / "clusters" / "gone" / "runs" / "far", "gone")
    sizes = r"\(1\.\d+ kB\)"
    for runs, says in (
        (["old", "new"], f"removes old {sizes}, new {sizes} for good$"),
        (["gone/far"], f"removes gone/far {sizes} from this machine only$"),
        (["far", "old"], f"removes old {sizes} for good; gone/far {sizes} from this machine only$"),
    ):
        with pytest.raises(InputError, match=says):
            launch("runs", "remove", "--here", *runs)


def test_a_link_that_leads_nowhere_goes(home: Path) -> None:
    (runs_home() / "lost").symlink_to(home / "unplugged")
    assert "removed run 'lost', 0 B" in launch("runs", "remove", "lost", "--yes").stdout
    assert left() == ["new", "old"]


def test_hosts_that_have_removed_a_run_are_named_where_another_fails(home: Path) -> None:
    mirror = make_run(home / "clusters" / "home" / "runs" / "d4-1", "home")
    hosts = {name: FakeConnection(name, [("du -sk", "there 4\n")]) for name in ("a", "b", "c")}
    for name, host in hosts.items():
        broken = Completed(1, "", "Read-only file system") if name == "b" else ""
        host.replies.append(("mv ", broken))
    run = RemoteRemoval.find(hosts, "home", "d4-1")
    with pytest.raises(CommandFailed, match="Read-only") as failed:
        run.remove()
    assert failed.value.fix is not None
    assert failed.value.fix.endswith(
        "launch runs remove home/d4-1   once that is mended; removed already from a, c"
    )
    assert mirror.path.exists()
    hosts["b"].replies[-1] = ("mv ", "")
    run.remove()
    assert not mirror.path.exists()


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
