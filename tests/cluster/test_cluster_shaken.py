"""A run that is hit again and again is the run that nobody touched. The long one, with all faults
and a clock, is tests/bench/chaos.py. After the tests of runs, before those of upkeep, by name."""

from __future__ import annotations

import json
import random

from harm import FAULTS
from lab import Host
from pair import CLUSTER, HostRun, PairClient, wait
from running import Run

SEED = 6
DECK = ("kill", "bit", "torn", "removed")  # each restarts the group, in seconds


def test_a_run_that_is_hit_again_and_again_is_the_undisturbed_one(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], slow_link: None
) -> None:
    chance = random.Random(SEED)
    faults = [FAULTS[name] for name in chance.sample(DECK, 3)] + [FAULTS["pause"]]
    steps = [chance.randrange(first, first + 3) for first in (7, 15, 23, 31)]
    run = client.run("hit")
    following = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", "hit")
    head = HostRun(hosts[0], "hit")
    for fault, step in zip(faults, steps, strict=True):
        wait(lambda step=step: _reached(head) >= step, 90, f"step {step}")
        host = chance.choice(hosts)
        fault.last(host, HostRun(host, "hit"))
    code, output = following.end(120)
    assert code == 0, output
    summary = json.loads((run.path / "summary.json").read_text())
    assert (summary["steps"], summary["restarts"]) == (40, 3)
    assert run.losses() == whole.losses()
    undisturbed = HostRun(hosts[0], "whole").hashes(40)
    assert all(HostRun(host, "hit").hashes(40) == undisturbed != {} for host in hosts)


def _reached(run: Run) -> int:
    return max((record["step"] for record in run.metrics), default=0)
