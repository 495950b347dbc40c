"""Runs on the nodes that are there: `elastic: true`, and `launch cluster drain`.

Shares are dealt anew with every change, so sums are rounded differently: losses stay within 1e-5
of the undisturbed run's. Between the tests of runs and those that purge the hosts, by name.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from lab import Host
from pair import CLUSTER, HostRun, PairClient, printed_steps, wait
from running import Run
from situations import Seen

BOUND = 1e-5
ELASTIC = ("--set", "elastic=true")
# Steps long enough for hosts to go and come between them; all checkpoints stay to be compared.
SLOW = ("--steps", "1000", "--set", "tokens_per_step=16384", "--set", "checkpoint.keep=1000")


def test_a_run_goes_on_with_the_hosts_that_are_there(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], seen: Seen
) -> None:
    """It starts while one is off, takes it when it has booted, goes on when it is lost again."""
    one, two = hosts
    train = ("recipe", "tiny", "--cluster", CLUSTER, *SLOW, "--detach")
    two.cut_power()
    what = "an elastic run begins while one of its hosts is off"
    begun = seen.launch(client, what, *train, "--name", "some", *ELASTIC)
    assert begun.returncode == 0, begun.stderr
    assert "going on without it, the recipe is elastic" in begun.stderr
    some = Followed(client, "some", one)
    some.wait_for_steps(2)
    assert some.groups() == [["one"]]
    two.boot()
    some.wait_for_group(["one", "two"])
    some.wait_for_steps(6)  # with a checkpoint
    two.unplug()  # nobody hears of its end
    two.cut_power()
    some.wait_for_group(["one"])
    some.wait_for_steps(2)
    stopped = client.launch("stop", f"{CLUSTER}/some", "--json")
    assert stopped.returncode == 0, stopped.stderr
    two.plug()
    two.boot()
    steps = json.loads(stopped.stdout)["steps"]
    assert some.groups() == [["one"], ["one", "two"], ["one"]]
    assert [event["before"] for event in some.resizes()] == [
        ["one", "two"],
        ["one"],
        ["one", "two"],
    ]
    whys = [event["why"] for event in some.resizes()]
    assert whys == ["two is not there", "two is there", "two is not there"]
    # Where the host joined, no step was lost and none made twice.
    joined = some.resizes()[1]["step"]
    assert [record["step"] for record in some.run.metrics][:joined] == list(range(1, joined + 1))
    assert _resumed_at(some.run)[0] == joined
    assert printed_steps(client.launch("logs", f"{CLUSTER}/some").stdout) == [*range(1, steps + 1)]
    assert "two is not there" in client.launch("logs", f"{CLUSTER}/some").stdout
    listed = json.loads(client.launch("runs", "--cluster", CLUSTER, "--json").stdout)
    assert next(run["resizes"] for run in listed if run["run"] == "some") == 3
    saved = sorted((HostRun(two, "some").path / "checkpoints").glob("step-*"))
    assert saved
    for path in saved:
        number = int(path.name.removeprefix("step-"))
        assert HostRun(one, "some").hashes(number) == HostRun(two, "some").hashes(number) != {}
    assert client.launch(*train, "--name", "all").returncode == 0
    every = Followed(client, "all", one)
    every.wait_for_steps(steps)
    assert client.launch("stop", f"{CLUSTER}/all").returncode == 0
    assert some.run.losses()[:steps] == pytest.approx(every.run.losses()[:steps], rel=BOUND)


def test_a_drained_host_costs_no_step(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], slow_link: None, seen: Seen
) -> None:
    head = seen.launch(client, "the head is to be drained", "cluster", "drain", CLUSTER, "one")
    assert head.returncode == 2 and "one is the head of pair" in head.stderr
    started = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", "left", *ELASTIC)
    wait(lambda: len(client.run("left").metrics) > 3, 120, "steps")
    what = "a host is drained under an elastic run"
    drained = seen.launch(client, what, "cluster", "drain", CLUSTER, "two")
    code, output = started.end(90)
    assert code == 0, output
    assert drained.returncode == 0 and "left" in drained.stderr + drained.stdout
    left = client.run("left")
    [change] = [event for event in left.events if event["kind"] == "resize"]
    assert (change["nodes"], change["why"]) == (["one"], "two is drained")
    # No step was lost and none made twice.
    assert [record["step"] for record in left.metrics] == list(range(1, 41))
    assert _resumed_at(left) == [change["step"]]
    assert left.losses() == pytest.approx(whole.losses(), rel=BOUND)
    assert [node["drained"] for node in client.cluster("status")] == [False, True]
    # New runs leave it out until it is taken back.
    without = client.launch(
        "recipe", "tiny", "--cluster", CLUSTER, "--name", "less", "--steps", "2"
    )
    assert without.returncode == 0 and "two is drained and left out" in without.stderr
    assert not HostRun(hosts[1], "less").path.exists()
    back = seen.launch(client, "a drained host is taken back", "cluster", "up", CLUSTER)
    assert "two was drained: it is taken back" in back.stderr
    assert [node["drained"] for node in client.cluster("status")] == [False, False]


def test_a_run_that_is_not_elastic_is_saved_and_goes_on_elsewhere(
    client: PairClient, whole: Run, slow_link: None, seen: Seen
) -> None:
    begun = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", "moves")
    wait(lambda: len(client.run("moves").metrics) > 3, 120, "steps")
    what = "a host is drained under a run that is not elastic"
    drained = seen.launch(client, what, "cluster", "drain", CLUSTER, "two")
    assert drained.returncode == 0, drained.stderr
    assert f"launch resume {CLUSTER}/moves   goes on without two" in drained.stderr
    assert begun.end()[0] == 0
    assert len(client.run("moves").metrics) < 40
    done = client.launch("resume", f"{CLUSTER}/moves", "--json")
    assert done.returncode == 0, done.stderr
    assert "was on one, two and goes on on one" in done.stderr
    assert client.run("moves").losses() == pytest.approx(whole.losses(), rel=BOUND)
    client.cluster("up")


class Followed:
    """A run's folder on the head, while the run goes on."""

    def __init__(self, client: PairClient, name: str, head: Host) -> None:
        self.run = HostRun(head, name)

    def resizes(self) -> list[dict[str, Any]]:
        return [event for event in self.run.events if event["kind"] == "resize"]

    def groups(self) -> list[list[str]]:
        return [event["nodes"] for event in self.resizes()]

    def wait_for_group(self, nodes: list[str]) -> None:
        wait(lambda: self.groups()[-1] == nodes, 90, f"a group of {nodes}")

    def wait_for_steps(self, count: int) -> None:
        """That the present group has made."""

        def made() -> bool:
            attempts = sum(event.get("stage") == "workers" for event in self.run.events)
            mine = [r for r in self.run.metrics if r["attempt"] == attempts - 1]
            began = self.resizes()[-1]["time"] if self.resizes() else 0.0
            return len([r for r in mine if r["time"] > began]) >= count

        wait(made, 120, f"{count} steps")


def _resumed_at(run: Run) -> list[int]:
    return [event["step"] for event in run.events if event["kind"] == "resume"]
