"""Runs on this machine from Enter to the end: real Ray, real gloo, real kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirror import publish, serving
from running import Home, Run, all_processes, kill, ray_processes, wait_until

SUMMARY = {
    "run", "recipe", "cluster", "steps", "tokens", "seconds", "tokens_per_second", "train_loss",
    "val_bpb", "checkpoint", "restarts", "status",
}  # fmt: skip
METRIC = {
    "step", "attempt", "tokens", "loss", "lr", "step_seconds", "tokens_per_second", "wire_bytes",
    "time",
}  # fmt: skip
LONG = ("--steps", "100000", "--set", "checkpoint.every_steps=100000")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module", autouse=True)
def strangers_ray(home: Home) -> Iterator[None]:
    """Somebody else's Ray, up before our runs, named by RAY_ADDRESS, and alive after them."""
    folder = subprocess.run(
        ["mktemp", "-d", "/tmp/ray-XXXX"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    subprocess.run(
        [Path(sys.executable).with_name("ray"), "start", "--head", "--port=26379", "--num-cpus=1",
         "--include-dashboard=false",
         "--node-ip-address=127.0.0.1", f"--temp-dir={folder}", "--disable-usage-stats"],
        env=environment, check=True, capture_output=True,
    )  # fmt: skip
    os.environ["RAY_ADDRESS"] = "127.0.0.1:26379"
    lasting = ("raylet/raylet ", "gcs/gcs_server ")
    theirs = {
        pid
        for pid, name in all_processes().items()
        if folder in name and any(part in name for part in lasting)
    }
    yield
    del os.environ["RAY_ADDRESS"]
    alive = all_processes().keys()
    subprocess.run(["pkill", "-9", "-f", folder])
    assert theirs and theirs <= alive, "a run has ended a stranger's Ray"
    assert not (left := ray_processes(home.path)), f"runs have left processes: {left}"


@pytest.fixture(scope="module", params=[1, 2], ids=["1 worker", "2 workers"])
def undisturbed(request: pytest.FixtureRequest, home: Home) -> tuple[int, Run]:
    """(workers, the finished run of 40 steps)."""
    workers = request.param
    name = f"whole-{workers}"
    done = home.launch("recipe", "tiny", "--name", name, "--set", f"workers={workers}", "--json")
    assert done.returncode == 0, done.stderr + (home.run(name).path / "log.txt").read_text()
    summary = json.loads(done.stdout)
    assert summary.keys() == SUMMARY
    assert summary["steps"] == 40 and summary["tokens"] == 40 * 2048 and summary["restarts"] == 0
    return workers, home.run(name)


def test_a_run_leaves_what_the_contract_names(undisturbed: tuple[int, Run]) -> None:
    workers, run = undisturbed
    assert {file.name for file in run.path.iterdir()} >= {
        "run.json", "metrics.jsonl", "events.jsonl", "log.txt", "checkpoints", "summary.json",
    }  # fmt: skip
    assert [record["step"] for record in run.metrics] == list(range(1, 41))
    for record in run.metrics:
        evaluated = {"val_bpb"} if record["step"] % 20 == 0 else set()
        assert record.keys() == METRIC | evaluated
        assert (record["wire_bytes"] > 0) == (workers > 1)
    losses = run.losses()
    assert losses[0] == pytest.approx(6.24, abs=0.02)  # ln 512
    assert losses[-1] < losses[0] - 0.5
    stages = {event["stage"]: event for event in run.events if event["kind"] == "start"}
    assert stages.keys() == {"data", "ray", "imports", "hardware", "workers", "first_step"}
    assert stages["first_step"]["seconds_since_enter"] > stages["ray"]["seconds"] > 0
    before = next(event for event in run.events if event["kind"] == "evaluate")
    assert before["step"] == 0 and before["val_bpb"] > run.metrics[-1]["val_bpb"]
    assert len(list((run.path / "checkpoints").iterdir())) == 2  # keep


def test_one_worker_and_two_have_the_same_losses(home: Home) -> None:
    one, two = home.run("whole-1").losses(), home.run("whole-2").losses()
    assert one == pytest.approx(two, rel=1e-5)


def test_killed_at_steps_8_and_23_it_ends_the_same(
    home: Home, undisturbed: tuple[int, Run]
) -> None:
    """kill -9 of everything, then of a worker: losses and weights are the undisturbed run's."""
    workers, whole = undisturbed
    name = f"killed-{workers}"
    client = home.start("recipe", "tiny", "--name", name, "--set", f"workers={workers}")
    run = home.run(name)
    run.wait_for_step(8)
    kill([client.pid, *run.processes()])
    assert client.end()[0] == -signal.SIGKILL
    wait_until(lambda: status(home, name) == "interrupted", 10)
    client = home.start("resume", name)
    run.wait_for_step(23)
    kill(run.processes(of="RayTrainWorker")[:1])
    code, output = client.end(90)
    assert code == 0, output
    summary = json.loads((run.path / "summary.json").read_text())
    assert (summary["restarts"], summary["steps"], summary["status"]) == (2, 40, "finished")
    assert run.differing_steps(whole) == []
    assert run.hashes(40) == whole.hashes(40) != {}


def status(home: Home, name: str) -> str:
    listed = json.loads(home.launch("runs", "--json").stdout)
    return next(entry["status"] for entry in listed if entry["run"] == name)


def test_a_client_that_is_killed_takes_its_ray_along(home: Home) -> None:
    client = home.start("recipe", "tiny", "--name", "orphan", *LONG)
    run = home.run("orphan")
    run.wait_for_step(3)
    kill([client.pid])
    client.end()
    wait_until(lambda: not run.processes(), 15)
    assert json.loads((run.path / "summary.json").read_text())["status"] == "stopped"
    assert run.hashes(run.metrics[-1]["step"])  # saved before it stopped


def test_ctrl_c_saves_and_stops(home: Home) -> None:
    client = home.start("recipe", "tiny", "--name", "stopped", *LONG)
    run = home.run("stopped")
    run.wait_for_step(3)
    client.interrupt()
    code, output = client.end()
    assert code == 130
    assert "launch resume stopped" in output and "Traceback" not in output
    assert run.hashes(run.metrics[-1]["step"])
    assert not run.processes()


def test_ctrl_c_twice_stops_at_once(home: Home) -> None:
    client = home.start("recipe", "tiny", "--name", "twice", *LONG)
    run = home.run("twice")
    wait_until(lambda: len(run.processes()) > 3, 60)  # Ray is starting
    client.interrupt()
    time.sleep(0.3)  # two signals at once are one
    client.interrupt()
    assert client.end()[0] == 130
    wait_until(lambda: not run.processes(), 5)


def test_detached_runs_are_followed_stopped_and_resumed(home: Home) -> None:
    started = home.launch("recipe", "tiny", "--name", "away", *LONG, "--detach", "--json")
    assert json.loads(started.stdout) == {"run": "away", "cluster": "local"}
    run = home.run("away")
    run.wait_for_step(2)
    busy = home.launch("resume", "away")
    assert busy.returncode == 2 and "is running" in busy.stderr
    follower = home.start("logs", "away", "-f")
    stopped = home.launch("stop", "away", "--json")
    assert stopped.returncode == 0, stopped.stderr
    step = json.loads(stopped.stdout)["steps"]
    assert run.hashes(step)
    code, output = follower.end()
    assert code == 0 and f"step {step:,}/100,000" in output
    again = home.launch("resume", "away", "--detach")
    assert again.returncode == 0, again.stderr
    run.wait_for_step(step + 5)
    assert home.launch("stop", "away").returncode == 0
    assert {event["step"] for event in run.events if event["kind"] == "resume"} == {step}
    shown = home.launch("logs", "away").stdout.splitlines()
    steps = [line for line in shown if line.startswith("step ") and "loss" in line]
    assert len(steps) == len(run.losses())


def test_a_model_speaks_as_its_seed_says(home: Home, undisturbed: tuple[int, Run]) -> None:
    _, run = undisturbed
    ask = ("sample", run.path.name, "--prompt", "def ", "--tokens", "20", "--json")
    first, again, other = (
        json.loads(home.launch(*ask, "--seed", seed).stdout)["text"] for seed in "112"
    )
    assert first == again != other
    plain = home.launch(*ask[:-1], "--seed", "1")
    assert plain.stdout == f"def {first}\n"


def test_other_text_under_the_same_name_is_refused(home: Home) -> None:
    text = home.path / "own.txt"
    text.write_text("the first text, again and again\n" * 3000)
    source = f"data.source=files:{text}"
    begun = home.launch("recipe", "tiny", "--name", "own", "--set", source, "--steps", "2")
    assert begun.returncode == 0, begun.stderr
    text.write_text("another text, again and again\n" * 3000)
    (home.path / "runs" / "own" / "summary.json").unlink()  # as if it had died
    refused = home.launch("resume", "own")
    assert refused.returncode == 1
    assert "is not what it began with" in refused.stderr and "data.train:" in refused.stderr


def test_a_finished_run_is_prolonged_and_nothing_else_may_change(home: Home) -> None:
    """The steps before are not made again. A run.json that was edited by hand is another run's."""
    begun = home.launch("recipe", "tiny", "--name", "longer", "--steps", "4")
    assert begun.returncode == 0, begun.stderr
    run = home.run("longer")
    before = run.losses()
    done = home.launch("resume", "longer", "--extend", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert "4 steps become 6. The learning rate was at" in done.stderr
    assert "run 'longer': 4 of 6 steps, last saved at step 4" in done.stderr
    summary = json.loads(done.stdout)
    assert (summary["steps"], summary["status"]) == (6, "finished")
    assert run.losses()[:4] == before and len(run.metrics) == 6
    [listed] = [r for r in json.loads(home.launch("runs", "--json").stdout) if r["run"] == "longer"]
    assert (listed["step"], listed["steps"]) == (6, 6)
    spec = json.loads((run.path / "run.json").read_text())
    assert spec["extended"] == [{"from": 4, "to": 6, "at_step": 4}]
    edited = {**spec, "settings": {**spec["settings"], "seed": 7, "warmup_steps": 1}}
    (run.path / "run.json").write_text(json.dumps(edited))
    refused = home.launch("resume", "longer", "--extend", "1")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "the checkpoint of step 6 is another run's:" in refused.stderr
    for line in ("  seed: 42 -> 7\n", "  warmup_steps: 0 -> 1\n"):
        assert line in refused.stderr
    assert "steps: 6" not in refused.stderr


def test_a_run_can_be_stopped_while_its_text_comes_and_goes_on(home: Home, tmp_path: Path) -> None:
    publish(tmp_path, 2, documents=300)
    with serving(tmp_path) as mirror:
        mirror.pause_seconds = 5
        begun = home.start(
            "recipe", "tiny", "--name", "slow", "--data", "climbmix:2",
            "--set", f"data.mirror={mirror.address}",
        )  # fmt: skip
        wait_until(lambda: len(mirror.requests) == 2, 60)
        wait_until(lambda: status(home, "slow") == "preparing", 30)
        stopped = home.launch("stop", "slow", "--json")
        assert json.loads(stopped.stdout)["status"] == "stopped", stopped.stderr
        assert "stopped" in begun.end()[1]
        assert home.run("slow").metrics == []
        log = home.launch("logs", "slow").stdout.splitlines()
        assert log[-1] == "stopped" and any(line.startswith("download ") for line in log)
    done = home.launch("resume", "slow", "--set", f"data.mirror={tmp_path}", "--json")
    assert done.returncode == 0, done.stderr
    assert "run 'slow': 0 of 40 steps, nothing saved yet" in done.stderr
    assert len(home.run("slow").metrics) == 40
    words = [event["words"] for event in home.run("slow").events if "words" in event]
    assert words[0].endswith("the rest follows while the run goes on")


def test_a_full_disk_costs_the_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)])
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    try:
        home = Home(disk / "home")
        begun = home.launch("recipe", "tiny", "--name", "full", "--steps", "10")
        assert begun.returncode == 0, begun.stderr
        saved = home.run("full").hashes(10)
        (disk / "filler").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - 65536))
        refused = home.launch("recipe", "tiny", "--name", "more", "--steps", "10")
        assert refused.returncode == 1
        assert "the disk is full" in refused.stderr and "MB" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert home.run("full").hashes(10) == saved != {}
        (disk / "filler").unlink()
        assert home.launch("resume", "more").returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
