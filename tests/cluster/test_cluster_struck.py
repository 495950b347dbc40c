"""What befalls home machines, done for real to runs of fixed size: they go on by themselves and are
the run that nobody touched. Seconds are the business of tests/bench/faults.py. Before the tests of
upkeep, by name: their last one purges the hosts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from harm import FAULTS
from lab import Host
from pair import CLUSTER, HostRun, PairClient, wait
from running import Client, Run

STAGES = {"detection", "teardown", "wait", "start", "import", "group", "load", "step"}


@contextmanager
def undisturbed_in_the_end(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], name: str
) -> Iterator[tuple[Client, HostRun]]:
    """A run of `whole`'s recipe that is hit in the block, and afterwards is as `whole`."""
    following = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", name)
    try:
        yield following, HostRun(hosts[0], name)
    finally:
        print(following.output())  # pytest shows it where something is not as it should be
    code, output = following.end(180)
    assert code == 0, output
    assert client.run(name).losses() == whole.losses()
    undisturbed = HostRun(hosts[0], "whole").hashes(40)
    assert all(HostRun(host, name).hashes(40) == undisturbed != {} for host in hosts)


def strike(fault: str, host: Host, head: HostRun, step: int) -> None:
    """Once the run has made the step."""
    wait(lambda: any(record["step"] >= step for record in head.metrics), 120, f"step {step}")
    FAULTS[fault].last(host, HostRun(host, head.path.name))


def told_to_wait(run: Run, known: int) -> int:
    """How often, since it had that many events."""
    return sum("two is not there: waiting" in e.get("message", "") for e in run.events[known:])


def test_ranks_that_die_or_freeze(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], slow_link: None
) -> None:
    one, two = hosts
    with undisturbed_in_the_end(client, whole, hosts, "ranks") as (following, head):
        strike("kill", one, head, 7)
        strike("kill", two, head, 14)
        strike("freeze", two, head, 21)
        strike("cable-5", two, head, 32)
    run, output = client.run("ranks"), following.output()
    told = [
        tuple(event[key] for key in ("what", "rank", "node", "attempt"))
        for event in run.events
        if event["kind"] == "fault"
    ]
    assert told == [("worker", 0, "one", 0), ("worker", 1, "two", 1), ("hang", 1, "two", 2)]
    # What each recovery took is in the events, in words in the log, and in the list.
    recovered = [event for event in run.events if event.get("stage") == "step"]
    assert [event["attempt"] for event in recovered] == [1, 2, 3]
    assert all(event["stages"].keys() == STAGES for event in recovered)
    assert output.count("s after the fault (detection") == 3
    assert "fault: the process of rank 1 on two (id " in output
    listed = json.loads(client.launch("runs", "--cluster", CLUSTER, "--json").stdout)
    listed = next(each for each in listed if each["run"] == "ranks")
    assert listed["restarts"] == 3
    assert listed["recovery"]["stages"] == recovered[-1]["stages"]
    # What the ranks of the group that hung were doing, the frozen one too.
    stacks = {path.name: path.read_text() for path in (head.path / "stacks").iterdir()}
    assert stacks.keys() == {"attempt-2-rank-0.txt", "attempt-2-rank-1.txt"}
    assert stacks["attempt-2-rank-1.txt"].startswith("state T (stopped)")
    assert all("(nanochat/train.py" in text for text in stacks.values())


def test_a_host_that_is_gone_and_comes_back(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], slow_link: None
) -> None:
    _, two = hosts
    with undisturbed_in_the_end(client, whole, hosts, "hosts") as (following, head):
        strike("raylet", two, head, 7)
        strike("power", two, head, 16)
        wait(lambda: any(r["step"] >= 25 for r in head.metrics), 120, "step 25")
        # Out for longer than Ray waits for it: the run waits for the host, and says so once.
        known = len(head.events)
        two.unplug()
        try:
            wait(lambda: told_to_wait(head, known), 60, "the run to wait")
            time.sleep(2)
        finally:
            two.plug()
        assert told_to_wait(head, known) == 1
    faults = [event for event in client.run("hosts").events if event["kind"] == "fault"]
    assert {event["node"] for event in faults if event.get("rank") is not None} == {"two"}
    assert "fault: two is gone" in following.output()
