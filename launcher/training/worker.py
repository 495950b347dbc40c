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
from launcher.runs.events import (
    Event,
    EventLog,
    FaultEvent,
    ResizeEvent,
    RestartEvent,
    ResumeEvent,
    StartEvent,
    parse_event,
    read_events,
)
from launcher.runs.folder import RunFolder
from launcher.runs.json_lines import JsonLinesWriter
from launcher.runs.metric import Metric, read_metrics
from launcher.runs.node import RunNode
from launcher.runs.spec import RunSpec
from launcher.runs.state import count_attempts, is_attempt
from launcher.training.benchmark import Benchmark
from launcher.training.failure_policy import NonRetryableError
from launcher.training.gauges import Gauges
from launcher.training.process_group import NODE_NAME_VARIABLE
from launcher.training.recovery_worker import RecoveryWorker
from launcher.training.stacks import allow_ptrace
from launcher.training.threads import use_threads
from launcher.training.train_config import run_config
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset.distributed import DistributedData
from nanochat.errors import NanochatError
from nanochat.exchange import all_gather_int
from nanochat.train import train

# Attempts in a row without a new step: one more would end where they did.
MAX_FUTILE_ATTEMPTS = 3
REGROUP = "regroup"  # what a worker returns that has saved, to go on in another group


def train_loop(arguments: dict[str, Any]) -> str | None:
    """Called by Ray on every worker, and again on all of them after any one has died or the group
    has changed.

    arguments: `run` (its folder below LAUNCH_HOME), `spec` (a RunSpec), `submitted` (time),
    `attempts_before` (of earlier drivers), `export_metrics`.
    """
    allow_ptrace()
    wait_seconds = time.time() - arguments["submitted"]
    home = launch_home()
    spec: RunSpec = arguments["spec"]
    assert spec.device is not None and spec.dtype is not None and spec.data is not None
    folder = RunFolder(home / arguments["run"])
    folder.path.mkdir(parents=True, exist_ok=True)  # on all hosts but the head it is new
    rank, world_size = dist.get_rank(), dist.get_world_size()
    context = ray.train.get_context()
    local_rank = context.get_local_rank()
    device = torch.device(spec.device)
    if device.type == "cuda":
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    node = os.environ.get(NODE_NAME_VARIABLE, "")
    # A node that has come to an elastic run may not be in its file of hardware; its raylet knows.
    threads = spec.threads.get(node) or int(os.environ["OMP_NUM_THREADS"])
    use_threads(threads, spec.cpus.get(node))
    try:
        gauges = Gauges(folder.name) if arguments["export_metrics"] and rank == 0 else None
        observer = RunObserver(folder, spec, is_rank_zero=rank == 0, gauges=gauges)
        observer.begin(wait_seconds, arguments["attempts_before"])
        data = DistributedData(
            home / "data" / "prepared" / Path(spec.data.folder).name,
            rank=rank,
            world_size=world_size,
            writes=local_rank == 0,
            device=device,
        )
        rank_nodes = _rank_nodes(spec, node, world_size, device)
        observer.nodes = [rank_node.name for rank_node in rank_nodes]
        if spec.benchmark is not None:
            Benchmark(
                folder, spec, observer.nodes or [""] * world_size, rank=rank, device=device,
                notify=lambda message: observer.event("measure", words=message),
            ).run()  # fmt: skip
        result = train(
            run_config(spec),
            data,
            CheckpointFolder(folder.checkpoints),
            observer,
            device=device,
            dtype=getattr(torch, spec.dtype),
            rank=rank,
            world_size=world_size,
            weights=_weights(rank_nodes),
            saves=local_rank == 0,
        )
        stop_requests = all_gather_int(int(folder.stop_request.exists()), world_size, device)
        return REGROUP if result.stopped and not any(stop_requests) else None
    except NanochatError as error:
        raise NonRetryableError(_with_node_name(error.message), error.fix) from error
    except OSError as error:
        raise NonRetryableError(_with_node_name(str(error)), None) from error


def _rank_nodes(spec: RunSpec, node: str, world_size: int, device: torch.device) -> list[RunNode]:
    """The node of each rank, as the run's spec has it. Empty on a machine of its own."""
    if not spec.nodes:
        return []
    own_index = [other.name for other in spec.nodes].index(node)
    return [spec.nodes[index] for index in all_gather_int(own_index, world_size, device)]


def _weights(rank_nodes: Sequence[RunNode]) -> list[float] | None:
    """Each node's share, split between its ranks. None: equal."""
    names = [node.name for node in rank_nodes]
    return [node.share / names.count(node.name) for node in rank_nodes] or None


def _with_node_name(message: str) -> str:
    """Put the host's name before a message if the run is on a cluster."""
    node = os.environ.get(NODE_NAME_VARIABLE)
    return f"{node}: {message}" if node else message


class RunObserver:
    """Writes a run's metrics and events, on rank 0 only, and watches for the request to stop."""

    def __init__(
        self, folder: RunFolder, spec: RunSpec, *, is_rank_zero: bool, gauges: Gauges | None
    ) -> None:
        self._folder = folder
        self._entered_at = spec.entered
        self.nodes: Sequence[str] = ()  # of each rank, if they have names
        self._is_rank_zero = is_rank_zero
        self._gauges = gauges
        self._attempt = 0
        self._first_step_since: float | None = None
        self._recovery: RecoveryWorker | None = None
        if is_rank_zero:
            self._metrics = JsonLinesWriter(folder.metrics)
            self._events = EventLog(folder.events)

    def begin(self, wait_seconds: float, attempts_before: int) -> None:
        """Count the attempt. Raises NonRetryableError if attempts end without a new step."""
        if not self._is_rank_zero:
            return
        earlier = read_events(self._folder.events)
        self._attempt = count_attempts(earlier)
        kind: type[Event] = StartEvent
        if self._attempt > attempts_before:  # Ray's doing, some time after the start
            kind = RestartEvent
            wait_seconds = time.time() - self._folder.metrics.stat().st_mtime
        seconds = round(wait_seconds, 3)
        self._events.write(kind.now(stage="workers", attempt=self._attempt, seconds=seconds))
        last_useful, reached = max(attempts_before - 1, _last_resized_attempt(self._folder)), 0
        for metric in read_metrics(self._folder.metrics):
            if metric.step > reached:
                last_useful, reached = max(last_useful, metric.attempt), metric.step
        if self._attempt - last_useful > MAX_FUTILE_ATTEMPTS:
            message = f"training died {MAX_FUTILE_ATTEMPTS} times in a row without a new step"
            raise NonRetryableError(message, f"see {self._folder.log}")
        if kind is StartEvent:
            self._first_step_since = time.time()
        else:
            self._recovery = RecoveryWorker(
                self._folder, self._events.write, attempt=self._attempt, reached=reached
            )

    def step(self, record: dict[str, Any]) -> None:
        if not self._is_rank_zero:
            return
        metric = Metric(**record, attempt=self._attempt, time=round(time.time(), 3))
        self._metrics.write(metric.as_json())
        if self._gauges is not None:
            self._gauges.update(metric)
        if self._recovery is not None and not self._recovery.step(metric.step):
            self._recovery = None
        if self._first_step_since is not None:
            seconds = round(time.time() - self._first_step_since, 3)
            self._first_step_since = None
            since_enter = round(time.time() - self._entered_at, 3)
            self._events.write(
                StartEvent.now(stage="first_step", seconds=seconds, seconds_since_enter=since_enter)
            )

    def event(self, kind: str, **details: Any) -> None:
        if kind in ("slow", "fault") and self.nodes:
            rank = details.get("rank", 0)  # a fault of its own: what is written is rank 0's
            if rank is not None:
                details["node"] = self.nodes[rank]
        if self._is_rank_zero and (kind != "stop" or self._folder.stop_request.exists()):
            now = round(time.time(), 3)
            self._events.write(parse_event({"time": now, "kind": kind, **details}))
        if self._recovery is not None and kind == ResumeEvent.KIND:
            self._recovery.loaded()

    def stop_requested(self) -> bool:
        """To end, or to go on in another group."""
        return self._folder.stop_request.exists() or self._folder.regroup_request.exists()


def _last_resized_attempt(folder: RunFolder) -> int:
    """Return the last attempt that ended because a node was lost or joined."""
    attempts, before = 0, -1
    for event in read_events(folder.events):
        if is_attempt(event):
            attempts += 1
        elif isinstance(event, ResizeEvent) or (
            isinstance(event, FaultEvent) and event.what == "node"
        ):
            before = attempts - 1
    return before
