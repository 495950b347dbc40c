"""What every Ray Train worker runs: nanochat's train function on this run's folder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray.train
import torch
import torch.distributed as dist

from launcher.config.paths import launch_home
from launcher.planner.measured_run import MEASURES
from launcher.runs.folder import RunFolder
from launcher.runs.records import RecordWriter, read_records
from launcher.training.benchmark import Benchmark
from launcher.training.failure_policy import NonRetryableError
from launcher.training.gauges import Gauges
from launcher.training.process_group import NODE
from launcher.training.recovery_worker import RecoveryWorker, count_attempts
from launcher.training.stacks import allow_stacks
from launcher.training.threads import use_threads
from launcher.training.train_config import run_config
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset.distributed import DistributedData
from nanochat.errors import NanochatError
from nanochat.exchange import all_gather_int
from nanochat.train import train

# Attempts in a row without a new step: one more would end where they did.
FUTILE_ATTEMPTS = 3
REGROUP = "regroup"  # what a worker returns that has saved, to go on in another group


def train_loop(arguments: dict[str, Any]) -> str | None:
    """Called by Ray on every worker, and again on all of them after any one has died or the group
    has changed.

    arguments: `run` (its folder below LAUNCH_HOME), `spec` (of run.json), `submitted` (time),
    `attempts_before` (of earlier drivers), `exports_metrics`.
    """
    allow_stacks()
    waited = time.time() - arguments["submitted"]
    home, spec = launch_home(), arguments["spec"]
    folder = RunFolder(home / arguments["run"])
    folder.path.mkdir(parents=True, exist_ok=True)  # on all hosts but the head it is new
    rank, world_size = dist.get_rank(), dist.get_world_size()
    context = ray.train.get_context()
    local_rank = context.get_local_rank()
    device = torch.device(spec["device"])
    if device.type == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    node = os.environ.get(NODE, "")
    # A node that has come to an elastic run may not be in its file of hardware; its raylet knows.
    threads = spec["threads"].get(node) or int(os.environ["OMP_NUM_THREADS"])
    use_threads(threads, spec["cpus"].get(node))
    try:
        gauges = Gauges(folder.name) if arguments["exports_metrics"] and rank == 0 else None
        observer = RunObserver(folder, spec, leads=rank == 0, gauges=gauges)
        observer.began(waited, arguments["attempts_before"])
        data = DistributedData(
            home / "data" / "prepared" / Path(spec["data"]["folder"]).name,
            rank=rank,
            world_size=world_size,
            writes=local_rank == 0,
            device=device,
        )
        group = _group(spec, node, world_size, device)
        observer.nodes = [each["name"] for each in group]
        if MEASURES in spec:
            Benchmark(
                folder, spec, observer.nodes or [""] * world_size, rank=rank, device=device,
                say=lambda words: observer.event("measure", words=words),
            ).run()  # fmt: skip
        result = train(
            run_config(spec),
            data,
            CheckpointFolder(folder.checkpoints),
            observer,
            device=device,
            dtype=getattr(torch, spec["dtype"]),
            rank=rank,
            world_size=world_size,
            weights=_weights(group),
            saves=local_rank == 0,
        )
        asked_to_end = all_gather_int(
            int(folder.stop_request.exists()), world_size, device
        )  # rank 0's
        return REGROUP if result.stopped and not any(asked_to_end) else None
    except NanochatError as error:
        raise NonRetryableError(_here(error.message), error.fix) from error
    except OSError as error:
        raise NonRetryableError(_here(str(error)), None) from error


def _group(
    spec: dict[str, Any], node: str, world_size: int, device: torch.device
) -> list[dict[str, Any]]:
    """The node of each rank that is there, as the run's spec has it. Empty on a machine of its
    own."""
    nodes = spec.get("nodes", ())
    if not nodes:
        return []
    mine = [each["name"] for each in nodes].index(node)
    return [nodes[index] for index in all_gather_int(mine, world_size, device)]


def _weights(group: Sequence[dict[str, Any]]) -> list[float] | None:
    """Each node's share, dealt out to its ranks. None: equal."""
    names = [each["name"] for each in group]
    return [each["share"] / names.count(each["name"]) for each in group] or None


def _here(message: str) -> str:
    """With the name of the host, where there are several."""
    node = os.environ.get(NODE)
    return f"{node}: {message}" if node else message


class RunObserver:
    """Writes a run's metrics and events, on rank 0 only, and watches for the request to stop."""

    def __init__(
        self, folder: RunFolder, spec: dict[str, Any], *, leads: bool, gauges: Gauges | None
    ) -> None:
        self._folder = folder
        self._entered = spec["entered"]
        self.nodes: Sequence[str] = ()  # of each rank, where they have names
        self._leads = leads
        self._gauges = gauges
        self._attempt = 0
        self._first_step_since: float | None = None
        self._recovered: RecoveryWorker | None = None
        if leads:
            self._metrics = RecordWriter(folder.metrics)
            self._events = RecordWriter(folder.events)

    def began(self, waited: float, attempts_before: int) -> None:
        """Count the attempt. Raises NonRetryableError where attempts keep ending without a new step."""
        if not self._leads:
            return
        self._attempt = count_attempts(self._folder)
        kind = "start"
        if self._attempt > attempts_before:  # Ray's doing, some time after the start
            kind = "restart"
            waited = time.time() - self._folder.metrics.stat().st_mtime
        self._events.event(kind, stage="workers", attempt=self._attempt, seconds=round(waited, 3))
        useful, reached = max(attempts_before - 1, _attempt_without_fault(self._folder)), 0
        for record in read_records(self._folder.metrics):
            if record["step"] > reached:
                useful, reached = max(useful, record["attempt"]), record["step"]
        if self._attempt - useful > FUTILE_ATTEMPTS:
            message = f"training died {FUTILE_ATTEMPTS} times in a row without a new step"
            raise NonRetryableError(message, f"see {self._folder.log}")
        if kind == "start":
            self._first_step_since = time.time()
        else:
            self._recovered = RecoveryWorker(
                self._folder, self.event, attempt=self._attempt, reached=reached
            )

    def step(self, record: dict[str, Any]) -> None:
        if not self._leads:
            return
        self._metrics.write({**record, "attempt": self._attempt, "time": round(time.time(), 3)})
        if self._gauges is not None:
            self._gauges.show(record)
        if self._recovered is not None and not self._recovered.step(record["step"]):
            self._recovered = None
        if self._first_step_since is not None:
            seconds = round(time.time() - self._first_step_since, 3)
            self._first_step_since = None
            since_enter = round(time.time() - self._entered, 3)
            self._events.event(
                "start", stage="first_step", seconds=seconds, seconds_since_enter=since_enter
            )

    def event(self, kind: str, **details: Any) -> None:
        if kind in ("slow", "fault") and self.nodes:
            rank = details.get("rank", 0)  # a fault of its own: what is written is rank 0's
            if rank is not None:
                details["node"] = self.nodes[rank]
        if self._leads and (kind != "stop" or self._folder.stop_request.exists()):
            self._events.event(kind, **details)
        if self._recovered is not None and kind == "resume":
            self._recovered.loaded()

    def stop_requested(self) -> bool:
        """To end, or to go on in another group."""
        return self._folder.stop_request.exists() or self._folder.regroup_request.exists()


def _attempt_without_fault(folder: RunFolder) -> int:
    """The last attempt that ended for want of a node, or for one that came."""
    attempts, before = 0, -1
    for event in read_records(folder.events):
        if event.get("stage") == "workers":
            attempts += 1
        elif event["kind"] == "resize" or (event["kind"], event.get("what")) == ("fault", "node"):
            before = attempts - 1
    return before
