"""Runs that outlive their driver and their head, and that go on longer or on other nodes. Before
the tests of upkeep, by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab import Host
from pair import CLUSTER, HostRun, PairClient, printed_steps, wait
from running import Run
from situations import Seen


def stopped_early(client: PairClient, name: str) -> Run:
    """A run of the recipe that was stopped on its way."""
    begun = client.launch("recipe", "tiny", "--cluster", CLUSTER, "--name", name, "--detach")
    assert begun.returncode == 0, begun.stderr
    there = HostRun(client.hosts[0], name)
    wait(lambda: len(there.metrics) > 5, 90, "steps")
    assert client.launch("stop", name).returncode == 0
    assert 5 < len(there.metrics) < 40
    return client.run(name)


def restarts(run: Run) -> list[str]:
    """What died of it, in order."""
    return [event["what"] for event in run.events if event.get("stage") == "driver"]


def test_a_run_goes_on_after_its_driver_was_killed_and_after_its_heads_power_was_cut(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], slow_link: None, seen: Seen
) -> None:
    """Nobody does anything but boot the head. It ends with the losses and weights of a run that
    nothing befell. While the head is off one client follows it, one waits to go on with another
    run, and one wants to go on with this run that does so anyway."""
    one = hosts[0]
    paused = stopped_early(client, "paused")
    begun = client.launch("recipe", "tiny", "--cluster", CLUSTER, "--name", "night", "--detach")
    assert begun.returncode == 0, begun.stderr
    there, follower = HostRun(one, "night"), client.start("logs", "night", "-f")
    wait(lambda: len(there.metrics) > 2, 90, "steps")
    for deaths, signal in enumerate(("KILL", "TERM"), start=1):  # the second: a host shuts down
        one.inside(f"pkill -{signal} -f '[t]raining.driver .*/night'")
        wait(lambda: len(restarts(there)) == deaths, 30, "the supervisor")  # noqa: B023
        assert client.cluster("status")[0]["runs"] == ["night"]
        wait(lambda: there.metrics[-1]["attempt"] == deaths, 90, "steps")  # noqa: B023
    wait(lambda: there.metrics[-1]["step"] > 8, 90, "new steps")
    one.cut_power()
    assert len(there.metrics) > 8 and not (there.path / "summary.json").exists()
    wait(lambda: "trying to reach it again" in follower.output(), 60, "the follower to notice")
    refused = seen.launch(client, "a run's head is off", "resume", "night")
    assert refused.returncode == 1 and f"launch resume {CLUSTER}/night --wait" in refused.stderr
    waiting = [client.start("resume", name, "--wait") for name in ("night", "paused")]
    for each in waiting:
        wait(lambda: "waiting for it" in each.output(), 60, "a client that waits")  # noqa: B023
    one.boot()
    code, output = follower.end(240)
    assert code == 0 and printed_steps(output) == list(range(1, 41)), output
    assert restarts(there) == ["driver", "driver", "head"]
    assert client.run("night").losses() == whole.losses()
    assert there.hashes(40) == HostRun(hosts[1], "night").hashes(40) == whole_hashes(hosts)
    ends = [each.end(120) for each in waiting]
    assert [code for code, _ in ends] == [0, 0], ends
    assert f"run '{CLUSTER}/night' has gone on by itself" in ends[0][1]
    assert paused.losses() == whole.losses() and HostRun(one, "paused").hashes(40)


def whole_hashes(hosts: tuple[Host, Host]) -> dict[str, str]:
    return HostRun(hosts[0], "whole").hashes(40)


def test_a_finished_run_is_prolonged_with_other_shares(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    file = client.path / "clusters" / f"{CLUSTER}.yaml"
    as_it_was = file.read_text()
    file.write_text(as_it_was.replace("{name: one,", "{name: one, share: 3,"))
    client.train("longer", "--steps", "6")
    file.write_text(as_it_was)
    done = client.launch("resume", "longer", "--extend", "4", "--json")
    assert done.returncode == 0, done.stderr
    assert "6 steps become 10. The learning rate was at 0.29 of its peak at step 6" in done.stderr
    said = "was on one (share 3), two (share 1) and goes on on one, two: the same rows in the same"
    assert said in done.stderr
    longer, summary = client.run("longer"), json.loads(done.stdout)
    assert (summary["steps"], summary["status"]) == (10, "finished")
    spec = json.loads((longer.path / "run.json").read_text())
    assert spec["extended"] == [{"from": 6, "to": 10, "at_step": 6}] and spec["steps"] == 10
    assert [node["share"] for node in spec["nodes"]] == [1.0, 1.0]
    assert [record["step"] for record in longer.metrics] == list(range(1, 11))
    assert HostRun(hosts[0], "longer").hashes(10) == HostRun(hosts[1], "longer").hashes(10) != {}


def test_a_run_goes_on_on_one_of_its_nodes_which_was_not_its_head(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], seen: Seen
) -> None:
    """The client brings the record; the checkpoint is there. The same rows in the same order: the
    losses are the undisturbed run's but for rounding."""
    moved = stopped_early(client, "moved")
    file = client.path / "clusters" / f"{CLUSTER}.yaml"
    as_it_was = file.read_text()
    lines = [line for line in as_it_was.splitlines() if "name: one," not in line]
    file.write_text("\n".join(lines) + "\n")
    try:
        gone = moved_checkpoints(hosts[1])
        gone.rename(gone.with_name("aside"))
        what = "a run goes on elsewhere, where none of its checkpoints is"
        lost = seen.launch(client, what, "resume", "moved")
        gone.with_name("aside").rename(gone)
        assert lost.returncode == 2 and "has any of its checkpoints" in lost.stderr
        done = client.launch("resume", "moved", timeout=240)
    finally:
        file.write_text(as_it_was)
    assert done.returncode == 0, done.stderr
    assert "was on one, two and goes on on two: the same rows in the same order" in done.stderr
    assert moved.losses() == pytest.approx(whole.losses(), rel=1e-5)
    assert len(HostRun(hosts[1], "moved").metrics) >= 40
    client.cluster("up", timeout=240)


def moved_checkpoints(host: Host) -> Path:
    return HostRun(host, "moved").path / "checkpoints"
