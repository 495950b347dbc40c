"""Two one-core test hosts with a cluster that is up, and runs on them whose steps are watched.

For the benchmarks of what befalls runs: `faults.py` and `chaos.py`.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "launcher"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))
from lab import Host, Lab
from pair import CLUSTER, HostRun, PairClient

from launcher.runs.metric import Metric, latest_attempts, read_metrics

SETTLED_STEPS = 3  # new ones, after which a run is said to have recovered
SETTLED_SECONDS = 8.0  # after the harm was undone: what still hits it has hit it by then
HASHED = ("model.safetensors", "optimizer.safetensors")


class Rig:
    """`client` has the cluster file of the lab's hosts; the first is the head."""

    def __init__(self, lab: Lab, client: PairClient) -> None:
        self.lab, self.client = lab, client
        self.one, self.two = lab.hosts

    def mend(self) -> None:
        """After something that was not survived: hosts on, cables in, Ray started anew."""
        for host in self.lab.hosts:
            host.plug()
            host.no_firewall()
            if not host.is_on():
                host.boot()
        self.client.launch("cluster", "down", CLUSTER, "--force", timeout=300)
        self.client.cluster("up", timeout=600)


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    """The hosts are gone at the end, also at Ctrl-C and SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="launch-lab-", dir="/var/tmp"))
    lab = Lab(folder)
    try:
        for core, name in enumerate(("one", "two")):
            lab.add(name, core=core)
        client = PairClient(folder / "client", lab.hosts)
        say("two hosts are on; making them ready")
        client.cluster("up", timeout=900)
        yield Rig(lab, client)
    finally:
        lab.close()


def say(words: str) -> None:
    print(f"{time.strftime('%T')}  {words}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Outcome:
    """What a run made of a fault. `seconds`: from the fault to the end of the next step;
    `replayed`: steps made again; `steps`: those that were new, first and last."""

    survived: bool
    seconds: float | None = None
    replayed: int = 0
    restarts: int = 0
    steps: tuple[int, int] = (0, 0)


class Trial:
    """One run on the rig."""

    def __init__(self, rig: Rig, name: str) -> None:
        self.rig, self.name = rig, name
        self.head = HostRun(rig.one, name)

    def begin(self, recipe: str, *arguments: str) -> None:
        """Raises RuntimeError with what the command said."""
        done = self.rig.client.launch(
            "recipe", recipe, "--cluster", CLUSTER, "--name", self.name, "--detach", *arguments,
            timeout=600,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)

    def on(self, host: Host) -> HostRun:
        return HostRun(host, self.name)

    def metrics(self) -> list[Metric]:
        return read_metrics(self.head.path / "metrics.jsonl")

    def losses(self) -> dict[int, float]:
        return {metric.step: metric.loss for metric in latest_attempts(self.metrics())}

    def reached(self) -> int:
        return max((metric.step for metric in self.metrics()), default=0)

    def attempt(self) -> int:
        return max((metric.attempt for metric in self.metrics()), default=0)

    def ended(self) -> bool:
        """By itself or by `launch stop`."""
        return (self.head.path / "summary.json").exists()

    def wait_for(self, condition: Callable[[], object], seconds: float) -> bool:
        """False: not within that time, or the run has ended before."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or self.ended():
                return bool(condition())
            time.sleep(0.1)
        return True

    def outcome(self, at: float, limit: float) -> Outcome:
        """Of a fault that struck at `at` and is undone: waits until it shows, `limit` seconds.
        Fewer than `SETTLED_STEPS` new steps by then: not survived."""
        undone = time.time()
        before = [metric for metric in self.metrics() if ended_at(metric) <= at]
        reached = max((metric.step for metric in before), default=0)
        settled = self.wait_for(
            lambda: (
                self.reached() >= reached + SETTLED_STEPS and time.time() > undone + SETTLED_SECONDS
            ),
            limit,
        )
        if not settled and self.reached() < reached + SETTLED_STEPS:
            return Outcome(survived=False)
        return what_became(self.metrics(), at)

    def weights(self, step: int) -> list[dict[str, str]]:
        """Hashes of a checkpoint's files, of each host."""
        return [self.on(host).hashes(step) for host in self.rig.lab.hosts]


def ended_at(metric: Metric) -> float:
    """When the step ended: every run of a bench writes it."""
    assert metric.time is not None
    return metric.time


def what_became(metrics: list[Metric], at: float, until: float | None = None) -> Outcome:
    """Of a fault at `at`, from metrics.jsonl. `until`: when the next one struck."""
    before = [metric for metric in metrics if ended_at(metric) <= at]
    after = [m for m in metrics if ended_at(m) > at and (until is None or ended_at(m) <= until)]
    reached = max((metric.step for metric in before), default=0)
    attempt = max((metric.attempt for metric in before), default=0)
    new = [metric.step for metric in after if metric.step > reached]
    if not new:
        return Outcome(survived=False)
    # A step that was at work when it struck does not count as the next one; where the group was
    # started again, none of the old group's does.
    restarted = [metric for metric in after if metric.attempt > attempt]
    begun = [metric for metric in after if ended_at(metric) - metric.step_seconds >= at]
    first = (restarted or begun or after)[0]
    return Outcome(
        survived=True,
        seconds=round(ended_at(first) - at, 1),
        replayed=sum(metric.step <= reached for metric in restarted),
        restarts=len({metric.attempt for metric in restarted}),
        steps=(min(new), max(new)),
    )


def difference(losses: Mapping[int, float], others: Mapping[int, float]) -> float | None:
    """The largest relative one among the steps that both have; None: they have none."""
    both = losses.keys() & others.keys()
    return max((abs(losses[s] - others[s]) / abs(others[s]) for s in both), default=None)


class CheckpointWatch:
    """Notes what each checkpoint of a run was, for they are soon pruned: hashes of its files and
    of the rows read so far. `seen`: step -> (hashes, rows)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seen: dict[int, tuple[dict[str, str], str]] = {}

    def look(self) -> None:
        for path in self._folder.glob("checkpoints/step-*"):
            with contextlib.suppress(OSError, ValueError, KeyError):  # it is just being removed
                self.seen[int(path.name.removeprefix("step-"))] = noted(path)


def noted(path: Path) -> tuple[dict[str, str], str]:
    """What a checkpoint's manifest and state say."""
    files: dict[str, Any] = json.loads((path / "manifest.json").read_text())["files"]
    rows = json.loads((path / "state.json").read_text())["rows_sha256"]
    return {name: files[name]["sha256"] for name in HASHED}, rows
