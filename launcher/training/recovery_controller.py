"""What went wrong in a run, and where each second until it trained again has gone.

The controller, on the head, sees faults and starts groups; rank 0, on the head too, sees the rest.
Both write to events.jsonl:

    fault    what (worker, node, hang, start), node, rank, attempt, message
    restart  stage group: seconds by stage until every rank was told to train; planned: the group
             before has saved and made way for another one, without a fault
    restart  stage step: the same and what followed, when the first step has ended
    restart  stage replay: when the step that was lost has been made again
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.worker_group import Worker, WorkerGroup, WorkerGroupPollStatus
from ray.train.v2.api.exceptions import WorkerGroupError

from launcher.runs.events import EventLog, FaultEvent, RestartEvent, read_events
from launcher.runs.folder import RunFolder
from launcher.runs.state import count_attempts
from launcher.training.callback import GroupCallback
from launcher.training.failure_policy import non_retryable_error
from launcher.training.process_group import rank_order
from launcher.training.scaling_policy import ended_for_regroup
from launcher.training.worker_group import lost_connection


class RecoveryController(GroupCallback):
    """In the controller. `nodes`: names in rank order."""

    def __init__(self, run: Path, nodes: Sequence[str]) -> None:
        self._folder = RunFolder(run)
        self._nodes = nodes
        self._ranks: list[Worker] = []
        self._healthy_at = 0.0  # every rank has answered
        self._detected_at = 0.0  # a fault, 0: there is none
        self._fault_written = False
        self._planned = False  # the group that has ended was to make way for the next one
        self._ended_at = self._started_at = self._placed_at = 0.0
        self._import_seconds = 0.0
        self.attempt = 0  # of the group that trains, or is started

    # --- a group that trains, and its end

    def after_worker_group_poll_status(self, status: WorkerGroupPollStatus) -> None:
        if status.errors:
            self._detected_at = self._detected_at or time.time()
        elif not self._detected_at:
            self._healthy_at = time.time()

    def before_worker_group_shutdown(self, worker_group: WorkerGroup) -> None:
        self._detected_at = self._detected_at or time.time()
        status = worker_group.get_latest_poll_status()
        self._planned = status is not None and ended_for_regroup(status)
        if status is None or not status.errors or self._fault_written:
            return
        error = status.get_worker_group_error()
        if non_retryable_error(error) is None:
            workers = worker_group.get_workers()
            self._fault_written = True
            self._write_fault(self.attempt, **_fault_details(error, workers, self._ranks))

    def after_worker_group_shutdown(self, worker_group_context: Any) -> None:
        self._ended_at = time.time()

    def begin_hang(self, seconds: float) -> None:
        """Note that a group is about to be ended because it has hung for so many seconds."""
        self._detected_at, self._fault_written = time.time(), True
        self._healthy_at = self._detected_at - seconds

    def write_hang(
        self, attempt: int, suspect: int | None, node: str | None, message: str, *, frozen: bool
    ) -> None:
        """`suspect`: the rank that others wait for, on `node`. `frozen`: a process does not run."""
        self._write_fault(
            attempt, what="hang", rank=suspect, node=node, message=message, frozen=frozen
        )

    def start_failed(self, error: Exception) -> None:
        """A group came to nothing."""
        self._ended_at = time.time()
        self._planned = False
        if not self._detected_at:
            self._healthy_at, self._detected_at = self._started_at, self._ended_at
        [first_line, *_] = str(error).splitlines() or [type(error).__name__]
        message = f"the ranks could not be started: {first_line}"
        self._write_fault(self.attempt, what="start", rank=None, node=None, message=message)

    def _write_fault(self, attempt: int, **details: Any) -> None:
        with EventLog(self._folder.events) as events:
            events.write(FaultEvent.now(attempt=attempt, **details))

    # --- the next one

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        self._started_at = time.time()

    def before_init_train_context(self, workers: list[Worker]) -> dict[str, list[Any]]:
        self._placed_at = time.time()
        self.attempt = count_attempts(read_events(self._folder.events))
        names = [worker.metadata.node for worker in workers]
        self._ranks = [workers[i] for i in rank_order(names, self._nodes)]
        # Of the process that was ready last, as far as it was waited for.
        waited = self._placed_at - self._started_at
        ready = [worker.metadata.seconds_since_import for worker in workers]
        self._import_seconds = max(0.0, waited - min(waited if r is None else r for r in ready))
        return {}

    def after_worker_group_training_start(self, worker_group: WorkerGroup) -> None:
        if self._detected_at:
            now = time.time()
            stages = {
                "detection": self._detected_at - self._healthy_at,
                "teardown": self._ended_at - self._detected_at,
                "wait": self._started_at - self._ended_at,
                "start": self._placed_at - self._started_at - self._import_seconds,
                "import": self._import_seconds,
                "group": now - self._placed_at,
            }
            restart = RestartEvent.now(
                stage="group",
                attempt=self.attempt,
                planned=self._planned,
                seconds=round(now - self._healthy_at, 3),
                stages={name: round(seconds, 3) for name, seconds in stages.items()},
            )
            with EventLog(self._folder.events) as events:
                events.write(restart)
        self._detected_at, self._fault_written, self._planned = 0.0, False, False
        self._healthy_at = time.time()


def _fault_details(
    error: WorkerGroupError, workers: Sequence[Worker], ranks: Sequence[Worker]
) -> dict[str, Any]:
    """The one from which the others follow: a rank whose process is gone, if there is one."""
    failures = error.worker_failures
    dead = [i for i, e in failures.items() if isinstance(e, WorkerHealthCheckFailedError)]
    index = dead[0] if dead else min(failures)
    worker = workers[index]
    rank, node = ranks.index(worker), worker.metadata.node
    on = f" on {node}" if node else ""
    what = "worker"
    if not dead:
        lines = str(failures[index]).strip().splitlines() or [type(failures[index]).__name__]
        message = f"rank {rank}{on}: {lines[0]}"
        if lost_connection(failures[index]):  # to whom, Ray has not found out yet
            return {"what": what, "rank": None, "node": None, "message": message}
    elif worker.metadata.node_id in {info["NodeID"] for info in ray.nodes() if info["Alive"]}:
        message = f"the process of rank {rank}{on} (id {worker.metadata.pid}) died"
    else:
        what, message = "node", f"{node} is gone"
    return {"what": what, "rank": rank, "node": node, "message": message}
