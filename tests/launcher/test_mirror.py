"""A run's files on the head become files here: each byte once, whatever breaks in between."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from records import make_folder, make_node, make_spec, make_summary

from launcher.cli.logs import follow_log, print_log
from launcher.cli.options import notify
from launcher.errors import (
    CommandFailed,
    ConnectionLost,
    DiskFull,
    InputError,
    LaunchError,
    NotFound,
    RunFailed,
)
from launcher.operations.run_address import open_run, open_run_to_read, resolve_run
from launcher.raycluster.spec import ClusterSpec
from launcher.remote.cluster_runs import ClusterRuns, RemoteRun
from launcher.remote.fetch_checkpoints import fetch_newest_checkpoints
from launcher.remote.mirror import Mirror
from launcher.runs.folder import RunFolder
from launcher.runs.json_lines import JsonLinesTail
from launcher.runs.record import write_json
from launcher.runs.run import LocalRun
from launcher.ssh.fake import FakeConnection
from launcher.ssh.protocol import Completed
from nanochat.backoff import Backoff
from nanochat.lock import hold_lock
from nanochat.progress import no_progress

PATH = ".launch/clusters/home/runs/d4-1"
ALIVE = json.dumps({"alive": True, "wanted": False, "by_itself": False})
ENDED = ALIVE.replace("true", "false")
SPEC = ClusterSpec(
    cluster="home", node="one", nodes=(make_node("one", address="10.0.0.1", interface="eth0"),),
    env="e", code="c", python=None, profile="lan", idle_minutes=30,
)  # fmt: skip


@pytest.fixture
def head() -> FakeConnection:
    run = make_spec(run="d4-1", cluster="home").to_bytes()
    files = {f"{PATH}/run.json": run, f"{PATH}/metrics.jsonl": b'{"step": 1}\n{"st'}
    return FakeConnection("one", {r"jobs\) status": ALIVE, "ls ": "d4-1\n"}, files)


@pytest.fixture
def run(head: FakeConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteRun:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    return RemoteRun(ClusterRuns(SPEC, head, lambda: head), "d4-1")


def test_what_is_appended_there_is_appended_here(head: FakeConnection, tmp_path: Path) -> None:
    mirror = Mirror(RunFolder(tmp_path / "d4-1"), PATH)
    assert mirror.update(head)
    assert not mirror.update(head)
    head.files[f"{PATH}/metrics.jsonl"] += b'ep": 2}\n'
    assert mirror.update(head)
    here = tmp_path / "d4-1" / "metrics.jsonl"
    assert here.read_bytes() == head.files[f"{PATH}/metrics.jsonl"] == b'{"step": 1}\n{"step": 2}\n'


def test_a_head_that_lost_the_end_of_a_file_is_believed(
    head: FakeConnection, tmp_path: Path
) -> None:
    """Its power went before the last lines had reached its disk; then the run went on."""
    mirror = Mirror(RunFolder(tmp_path / "d4-1"), PATH)
    tail = JsonLinesTail(mirror.folder.metrics)
    there = f"{PATH}/metrics.jsonl"
    lines = [b'{"step": %d, "loss": %d}\n' % (step, step) for step in range(1, 40)]
    head.files[there] = b"".join(lines)
    mirror.update(head)
    assert len(tail.read()) == 39
    for kept, more in (20, b""), (20, b'{"step": 21, "loss": 7}\n'), (10, b'{"s": 1}\n' * 200):
        head.files[there] = b"".join(lines[:kept]) + more
        assert mirror.update(head)
        assert mirror.folder.metrics.read_bytes() == head.files[there]
    assert tail.read()[-1] == {"s": 1}


def test_what_is_replaced_or_removed_there_is_here_too(
    head: FakeConnection, tmp_path: Path
) -> None:
    mirror = Mirror(RunFolder(tmp_path / "d4-1"), PATH)
    summary = f"{PATH}/summary.json"
    head.files[summary] = make_summary(status="stopped").to_bytes()
    mirror.update(head)
    assert mirror.folder.summary() == make_summary(status="stopped")
    del head.files[summary]  # the run was resumed
    assert mirror.update(head) and mirror.folder.summary() is None


def test_an_earlier_run_of_the_same_name_is_set_aside(head: FakeConnection, tmp_path: Path) -> None:
    """After `down --purge` the head counts from 1 again."""
    folder = RunFolder(tmp_path / "d4-1")
    Mirror(folder, PATH).update(head)
    earlier = folder.metrics.read_bytes()
    head.files[f"{PATH}/run.json"] = make_spec(run="d4-1", cluster="home", created=2.0).to_bytes()
    head.files[f"{PATH}/metrics.jsonl"] = b'{"step": 1, "loss": 7}\n{"step": 2}\n'
    Mirror(folder, PATH).update(head)
    assert folder.metrics.read_bytes() == head.files[f"{PATH}/metrics.jsonl"]
    assert (tmp_path / "d4-1.1" / "metrics.jsonl").read_bytes() == earlier


def test_an_earlier_run_that_cannot_be_read_whole_is_set_aside_too(
    head: FakeConnection, tmp_path: Path
) -> None:
    here = tmp_path / "d4-1"
    for _ in range(2):
        here.mkdir()
        (here / "run.json").write_bytes(b'{"created": 2.0, "nodes": 5}')
        (here / "metrics.jsonl").write_bytes(b'{"step": 9}\n')
        assert Mirror(RunFolder(here), PATH).update(head)
        assert (here / "metrics.jsonl").read_bytes() == head.files[f"{PATH}/metrics.jsonl"]
        shutil.rmtree(here)
    aside = sorted(tmp_path.glob("d4-1.*/metrics.jsonl"))
    assert [path.read_bytes() for path in aside] == [b'{"step": 9}\n'] * 2


@pytest.mark.parametrize("content", [b'{"created": 1.0', b"{}", b'{"created": "x"}'])
def test_a_damaged_mirror_is_mended(head: FakeConnection, tmp_path: Path, content: bytes) -> None:
    mirror = Mirror(RunFolder(tmp_path / "d4-1"), PATH)
    mirror.update(head)
    mirror.folder.checkpoints.mkdir()
    mirror.folder.spec_file.write_bytes(content)
    assert mirror.update(head) and mirror.folder.spec().run == "d4-1"
    head.files[f"{PATH}/run.json"] = content  # there too: what is here stays in its place
    mirror.update(head)
    mirror.update(head)
    assert list(tmp_path.iterdir()) == [mirror.folder.path] and mirror.folder.checkpoints.exists()


def test_a_head_that_lost_its_disk_takes_nothing_from_the_mirror(
    head: FakeConnection, tmp_path: Path
) -> None:
    mirror = Mirror(RunFolder(tmp_path / "d4-1"), PATH)
    mirror.update(head)
    head.files.clear()
    assert not mirror.update(head)
    assert mirror.folder.spec().run == "d4-1" and mirror.folder.metrics.exists()


def test_two_commands_that_follow_share_a_mirror(head: FakeConnection, tmp_path: Path) -> None:
    mirror = Mirror(RunFolder(tmp_path / "d4-1"), PATH)
    mirror.folder.path.mkdir()
    with hold_lock(mirror.folder.path / "mirror.lock"):
        assert not mirror.update(head)  # the other one is bringing it
    assert mirror.update(head)


def test_a_change_leaves_what_the_head_alone_knows(run: RemoteRun, head: FakeConnection) -> None:
    """The mirror lags behind: another client has changed the run, its driver has written more."""
    run.mirror.update(head)
    lagging = run.folder.spec()
    newer = lagging.with_changes(steps=12, text={"source": "7d1e0b52c8f34a96"}, device="cpu")
    head.files[f"{PATH}/run.json"] = newer.to_bytes()
    changed = lagging.with_changes(settings={"depth": 2}, entered=7.5)
    assert changed.changes_since(lagging) == {"settings": {"depth": 2}, "entered": 7.5}
    run.update_spec(**changed.changes_since(lagging))
    expected = newer.with_changes(settings={"depth": 2}, entered=7.5)
    assert run.folder.spec() == expected
    head.files[f"{PATH}/run.json"] = b'{"steps": 4'
    with pytest.raises(InputError, match=r"one: ~/\.launch/clusters/home/runs/d4-1/run\.json"):
        run.update_spec(entered=8.0)


def test_a_slow_run_is_asked_about_ever_more_rarely(
    run: RemoteRun, head: FakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    asked = []
    for second in range(130):
        if second == 100:  # a step has ended
            head.files[f"{PATH}/metrics.jsonl"] += b'ep": 2}\n'
        before = len(head.ran)
        run.update()
        if len(head.ran) > before:
            asked.append(second)
        now += 1.0
    assert asked == [0, 6, 17, 38, 59, 80, 106, 117]


def test_a_run_that_cannot_be_made_says_so(run: RemoteRun, head: FakeConnection) -> None:
    full = Completed(1, "", "mkdir: cannot create directory: No space left on device")
    head.replies.insert(0, ("mkdir", full))
    with pytest.raises(CommandFailed, match="No space left"):
        run.runs.create(None, "d4", make_spec())


def test_a_disk_that_is_full_for_the_record_leaves_the_name_free(
    run: RemoteRun, head: FakeConnection
) -> None:
    head.replies[:0] = [("rmdir", ""), ("mkdir", "made\n")]

    def full(*_: object, **__: object) -> None:
        raise DiskFull("one", "its disk is full")

    head.write = full  # type: ignore[method-assign]
    with pytest.raises(DiskFull):
        run.runs.create("mine", "d4", make_spec())
    assert head.ran[-1] == "rmdir .launch/clusters/home/runs/mine"


def test_names_that_are_taken_are_passed_over(run: RemoteRun, head: FakeConnection) -> None:
    """d4-1 by its folder on the head, d4-2 by an earlier mirror here, d4-3 in this very moment."""
    (run.folder.path.parent / "d4-2").mkdir(parents=True)
    head.replies.insert(0, ("mkdir .*d4-3", ""))
    head.replies.insert(1, ("mkdir", "made\n"))
    assert run.runs.create(None, "d4", make_spec(created=5.0)).name == "d4-4"
    assert run.runs.create(None, "d4", make_spec(created=6.0), reserved={"d4-5"}).name == "d4-6"
    with pytest.raises(InputError, match="exists already"):
        run.runs.create("d4-5", "d4", make_spec(), reserved={"d4-5"})
    head.replies.insert(0, ("mkdir", ""))
    with pytest.raises(InputError, match="exists already"):
        run.runs.create("d4-1", "d4", make_spec())


def checkpoint(head: FakeConnection, name: str, **files: bytes) -> None:
    folder = f"{PATH}/checkpoints/{name}"
    described = {
        file: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for file, data in files.items()
    }
    head.files[f"{folder}/manifest.json"] = json.dumps({"files": described}).encode()
    head.files |= {f"{folder}/{file}": data for file, data in files.items()}


def test_checkpoints_come_home_with_their_tokenizer_and_nothing_else(
    run: RemoteRun, head: FakeConnection
) -> None:
    parts = {"model.safetensors": b"m", "optimizer.safetensors": b"o", "state.json": b"{}"}
    checkpoint(head, "step-00000009", **parts, **{"../../../evil": b"e"})
    head.files[f"{PATH}/tokenizer.json"] = b"tokens"
    head.replies.insert(0, ("ls .*checkpoints", "step-00000009\n"))
    head.replies.insert(0, ("probe", Completed(1, "", "")))
    home = fetch_newest_checkpoints(run.runs, {"one": head}, no_progress)
    assert home == {"d4-1": str(run.folder.checkpoints / "step-00000009")}
    assert run.folder.tokenizer.read_bytes() == b"tokens"
    fetched = {path.name for path in (run.folder.checkpoints / "step-00000009").iterdir()}
    assert fetched == {*parts, "manifest.json"}
    assert not list(run.folder.path.parents[3].rglob("evil"))
    del head.files[f"{PATH}/tokenizer.json"]
    with pytest.raises(LaunchError, match="no host has the tokenizer"):
        fetch_newest_checkpoints(run.runs, {"one": head}, no_progress)
    head.replies.insert(0, ("probe", ""))  # seen there: the host's folder is this machine's
    with pytest.raises(InputError, match=r"LAUNCH_HOME is .* the folder of host one"):
        fetch_newest_checkpoints(run.runs, {"one": head}, no_progress)


def test_a_run_whose_record_nobody_has_is_not_removed(run: RemoteRun, head: FakeConnection) -> None:
    parts = {"model.safetensors": b"m", "optimizer.safetensors": b"o", "state.json": b"{}"}
    checkpoint(head, "step-00000009", **parts)
    record = head.files.pop(f"{PATH}/run.json")
    two = FakeConnection("two", head.replies, {f"{PATH}/run.json": record})
    for host in (head, two):
        host.replies.insert(0, ("ls .*checkpoints", "step-00000009\n"))
        host.replies.insert(0, ("probe", Completed(1, "", "")))
    with pytest.raises(LaunchError, match=r"no host has the run\.json of run 'd4-1'"):
        fetch_newest_checkpoints(run.runs, {"one": head}, no_progress)
    two.files[f"{PATH}/tokenizer.json"] = b"tokens"  # the head before this one
    assert fetch_newest_checkpoints(run.runs, {"one": head, "two": two}, no_progress)
    assert run.folder.spec().run == "d4-1"


def test_following_outlives_a_break(
    run: RemoteRun, head: FakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("launcher.remote.cluster_runs.RECONNECT_BACKOFF", Backoff(0.0, 0.0))
    said: list[str] = []
    run.notify = said.append
    assert run.refresh()
    lost = ConnectionLost("one", "the connection was lost")
    real, failures = head.read, [lost]

    def breaking(path: str, offset: int = 0) -> bytes:
        if failures:
            raise failures.pop()
        return real(path, offset)

    head.read = breaking  # type: ignore[method-assign]
    head.close = lambda: None  # type: ignore[method-assign]
    head.files[f"{PATH}/metrics.jsonl"] += b'ep": 2}\n'
    assert run.refresh() and run.refresh()
    assert run.folder.metrics.read_bytes() == b'{"step": 1}\n{"step": 2}\n'
    assert len(said) == 2 and "the run goes on" in said[0] and said[1] == "connected to one again"


def test_it_ends_with_the_summary(run: RemoteRun, head: FakeConnection) -> None:
    assert run.refresh()
    head.files[f"{PATH}/summary.json"] = make_summary(status="finished").to_bytes()
    assert not run.refresh()


def test_it_ends_when_the_driver_is_gone_without_a_word(
    run: RemoteRun, head: FakeConnection
) -> None:
    head.replies.insert(0, (r"jobs\) status", ENDED))
    assert not run.refresh()
    assert run.folder.metrics.exists()  # what it wrote before is here


def test_a_head_that_has_just_booted_gets_time_for_its_supervisor(
    run: RemoteRun, head: FakeConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    booting = json.dumps({"alive": False, "wanted": True, "by_itself": False})
    head.replies.insert(0, (r"jobs\) status", booting))
    assert run.refresh()
    monkeypatch.setattr("launcher.remote.cluster_runs.STATUS_BACKOFF", Backoff(-1.0, -1.0))
    monkeypatch.setattr("launcher.remote.cluster_runs.BOOT_SECONDS", 0.0)
    assert not run.refresh()
    head.replies.insert(0, (r"jobs\) status", ALIVE))
    assert run.refresh()


def test_logs_say_that_a_driver_died_where_its_head_says_so(
    run: RemoteRun, head: FakeConnection, capsys: pytest.CaptureFixture[str]
) -> None:
    head.files[f"{PATH}/metrics.jsonl"] = b""
    print_log(run, as_json=False)
    assert capsys.readouterr().out == ""
    head.replies[:0] = [(r"jobs\) status", ENDED), ("df ", "/dev/a 9 1 9999 1% /")]
    asked_later = RemoteRun(run.runs, "d4-1")
    print_log(asked_later, as_json=False)
    assert capsys.readouterr().out == "interrupted: its driver died without a word\n"
    with pytest.raises(RunFailed, match="the driver of run 'home/d4-1' died without a word"):
        follow_log(asked_later)


def test_logs_of_a_run_whose_cluster_cannot_be_asked_do_not_guess(
    run: RemoteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(run.folder.path, run="d4-1", cluster="home")
    seen = LocalRun(run.folder, "home")
    print_log(seen, as_json=False)
    assert capsys.readouterr().out == ""
    with pytest.raises(LaunchError, match="whether run 'home/d4-1' goes on is not known") as error:
        follow_log(seen)
    assert error.value.exit_code == 1 and not isinstance(error.value, RunFailed)
    make_summary(cluster="home", status="failed").write(run.folder.summary_file)
    with pytest.raises(RunFailed, match="run 'home/d4-1' failed"):
        follow_log(seen)


def test_an_unknown_run_is_named_with_those_there_are(run: RemoteRun, head: FakeConnection) -> None:
    with pytest.raises(NotFound) as error:
        run.runs.find("d9-1")
    assert "one, the head of cluster home" in error.value.message
    assert error.value.fix == "name one of: d4-1"


def test_where_a_name_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    for folder in ("runs/here", "clusters/home/runs/there", "runs/both", "clusters/home/runs/both"):
        make_folder(tmp_path / folder)
    file = tmp_path / "mine.yaml"
    file.touch()
    write_json(tmp_path / "clusters" / "home" / "used.json", {"file": str(file)})
    assert resolve_run("here", None) == ("local", "here")
    assert resolve_run("there", None) == resolve_run("home/there", None) == (str(file), "there")
    assert resolve_run("new", None) == ("local", "new")
    # C/RUN is of the cluster that --cluster C means here, whatever C was used with before.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clusters" / "home.yaml").touch()
    assert resolve_run("home/there", None) == ("home", "there")
    assert resolve_run("there", None) == (str(file), "there")
    file.unlink()
    assert resolve_run("there", None) == ("home", "there")
    with pytest.raises(InputError, match="several runs") as error:
        resolve_run("both", None)
    assert error.value.fix == "say which: local/both or home/both"
    for pattern in ("**", "*", "the?e", "[ht]here", "n" * 300):  # a name is no pattern
        assert resolve_run(pattern, None) == ("local", pattern)
        with pytest.raises(NotFound, match="is known here"), open_run(pattern, None):
            pass


def test_a_run_is_of_one_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C/RUN and --cluster may both be said, as long as they say the same."""
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    files = {name: Path("clusters", f"{name}.yaml") for name in ("home", "away")}
    files["home"].parent.mkdir()
    for file in files.values():
        file.write_text("nodes: [{host: 198.18.0.11}]")
    assert resolve_run("home/d4-1", "home") == ("home", "d4-1")
    assert resolve_run("home/d4-1", str(files["home"])) == (str(files["home"]), "d4-1")
    for other in ("away", str(files["away"]), "local"):
        with pytest.raises(InputError, match=f"is a run of home, --cluster says {other}"):
            resolve_run("home/d4-1", other)
    with pytest.raises(NotFound, match=r"no cluster file gone\.yaml"):
        resolve_run("home/d4-1", "gone.yaml")


def test_a_run_that_nobody_can_be_asked_for_is_read_as_it_was_seen_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its hosts were purged, are off, or its cluster file has gone."""
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "clusters" / "home" / "runs" / "d4-1", cluster="home")
    with open_run_to_read("d4-1", None, notify=notify) as run:
        assert (run.cluster, run.folder.name, run.refresh()) == ("home", "d4-1", False)
    said = capsys.readouterr().err
    assert "no cluster named 'home'" in said and said.endswith("\nshown as it was seen last\n")
    with pytest.raises(NotFound), open_run_to_read("home/d4-2", None):
        pass
    with pytest.raises(NotFound), open_run("d4-1", None):
        pass
