"""What befalls home machines, done for real to a run of fixed size: it goes on by itself and is the
run that nobody touched. Seconds are the business of tests/bench/faults.py."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from harm import FAULTS
from lab import Host
from pair import CLUSTER, HostRun, PairClient, wait
from running import Run

# Fault, the host that it befalls (0: the head), what the event says, restarts.
CASES = [
    ("kill", 0, {"what": "worker", "rank": 0, "node": "one"}, 1),
    ("kill", 1, {"what": "worker", "rank": 1, "node": "two"}, 1),
    ("freeze", 1, {"what": "hang", "rank": 1, "node": "two"}, 1),
    ("cable-5", 1, None, 0),
    ("raylet", 1, {"rank": 1, "node": "two"}, 1),
    ("power", 1, {"rank": 1, "node": "two"}, 1),
]
STAGES = {"detection", "teardown", "wait", "start", "import", "group", "load", "step"}


@pytest.fixture
def slow_link(hosts: tuple[Host, Host]) -> Any:
    """Slower steps, so that a fault finds the run in the middle."""
    for host in hosts:
        host.limit_link(100)
    yield
    for host in hosts:
        host.unlimit_link()


@pytest.mark.parametrize(("fault", "number", "told", "restarts"), CASES)
def test_it_goes_on_and_is_the_same_run(
    client: PairClient,
    whole: Run,
    hosts: tuple[Host, Host],
    slow_link: None,
    fault: str,
    number: int,
    told: dict[str, Any] | None,
    restarts: int,
) -> None:
    host, name = hosts[number], f"{fault}-{number}"
    following = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", name)
    head = HostRun(hosts[0], name)
    wait(lambda: any(record["step"] >= 12 for record in head.metrics), 90, "step 12")
    FAULTS[fault].last(host, HostRun(host, name))
    code, output = following.end(180)
    assert code == 0, output
    summary = json.loads((client.run(name).path / "summary.json").read_text())
    assert summary["steps"] == 40
    assert client.run(name).losses() == whole.losses()
    undisturbed = HostRun(hosts[0], "whole").hashes(40)
    assert all(HostRun(each, name).hashes(40) == undisturbed != {} for each in hosts)
    faults = [event for event in client.run(name).events if event["kind"] == "fault"]
    if told is None:
        assert (summary["restarts"], faults) == (restarts, [])
        return
    assert summary["restarts"] >= restarts
    assert told.items() <= faults[0].items()
    recovered = [e for e in client.run(name).events if e.get("stage") == "step"]
    assert recovered and recovered[-1]["stages"].keys() == STAGES
    assert f"fault: {faults[0]['message']}" in output and "after the fault (detection" in output
    listed = json.loads(client.launch("runs", "--cluster", CLUSTER, "--json").stdout)
    recovery = next(run["recovery"] for run in listed if run["run"] == name)
    assert recovery["stages"] == recovered[-1]["stages"]
    if faults[0]["what"] == "hang":
        stacks = {path.name: path.read_text() for path in (head.path / "stacks").iterdir()}
        assert stacks.keys() == {"attempt-0-rank-0.txt", "attempt-0-rank-1.txt"}
        assert stacks["attempt-0-rank-1.txt"].startswith("state T (stopped)")
        assert all("(nanochat/train.py" in text for text in stacks.values())


def test_a_host_that_is_away_is_waited_for_with_words(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], slow_link: None
) -> None:
    following = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", "away-2")
    head = HostRun(hosts[0], "away-2")
    wait(lambda: any(record["step"] >= 12 for record in head.metrics), 90, "step 12")
    hosts[1].unplug()
    try:
        wait(lambda: any(e["kind"] == "wait" for e in head.events), 60, "the wait")
        time.sleep(3)
        assert sum(event["kind"] == "wait" for event in head.events) == 1
    finally:
        hosts[1].plug()
    code, output = following.end(180)
    assert code == 0, output
    assert client.run("away-2").losses() == whole.losses()
    assert "fault: two is gone" in output
