"""The workers of one attempt: begun in processes that are ready, ended at once.

Ray Train 2.60.0's own group asks its workers to close their process group, waits up to 10 s for
that, and leaks the slots of a group that dies while it starts. Ours has nothing to close: what a
worker knows is on disk, so it is killed. Nor has it Ray's barrier actor, another process that
imports for seconds: it serves `ray.train.report`, which nobody calls (2 s a call).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.train import ScalingConfig
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
)
from ray.train.v2._internal.execution.worker_group import (
    ActorMetadata,
    RayTrainWorker,
    Worker,
    WorkerGroup,
    WorkerGroupContext,
    WorkerGroupPollStatus,
    WorkerGroupState,
)
from ray.train.v2._internal.execution.worker_group.placement_group_handle import (
    DefaultPlacementGroupHandle,
    PlacementGroupHandle,
)
from ray.train.v2._internal.util import bundle_to_remote_args
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from launcher.training.callback import GroupCallback
from launcher.training.process_group import NODE_NAME_VARIABLE
from launcher.training.worker_preload import seconds_since_import

POLL_SECONDS = 0.5  # between two looks at which nodes are alive
# Before a placement on a node that has gone is taken back. While Ray 2.60 still asks its nodes,
# taking it back leaves the slots of the others reserved for good: no group began after that.
LOST_NODE_SECONDS = 5.0
PLACEMENT_TIMEOUT_SECONDS = 15.0  # then the available nodes are listed again
START_TIMEOUT_SECONDS = 120.0  # a new process imports for 5 s on one core, for 30 from a cold disk
# How long to wait for the cause: the peers of a process that dies raise before Ray notices it.
CAUSE_SECONDS = 1.0
LOST_CONNECTION_MESSAGES = (
    "Connection closed by peer",
    "Connection reset",
    "Broken pipe",
    "Socket closed",
)


@dataclass(frozen=True)
class WorkerMetadata(ActorMetadata):
    """Ray's own metadata of a worker, and where and how it was started."""

    node: str
    """Name of its node, empty on a machine of its own."""
    seconds_since_import: float | None
    """Seconds since its process had imported all modules; None if it imported none ahead."""


class RayTrainWorkerOnNode(RayTrainWorker):
    def get_metadata(self) -> WorkerMetadata:
        fields = vars(super().get_metadata())
        return WorkerMetadata(
            **fields,
            node=os.environ.get(NODE_NAME_VARIABLE, ""),
            seconds_since_import=seconds_since_import(),
        )


class RunWorkerGroup(WorkerGroup):
    def _start(self) -> None:
        """Raises WorkerGroupStartup...Error where it is to be tried again; nothing is left then."""
        context = self._worker_group_context
        for callback in self._callbacks:
            callback.before_worker_group_start(context)
        nodes_before = _alive_node_ids()
        placement = self._create_placement_group(self._train_run_context.scaling_config, context)
        actors: list[Any] = []
        try:
            if not placement.wait(PLACEMENT_TIMEOUT_SECONDS):
                raise WorkerGroupStartupFailedError(
                    "its nodes have no room for all ranks, or one has gone"
                )
            remote_args = bundle_to_remote_args(context.resources_per_worker)
            actor = ray.remote(**remote_args)(RayTrainWorkerOnNode)
            for index in range(context.num_workers):
                strategy = PlacementGroupSchedulingStrategy(placement.placement_group, index)
                actors.append(actor.options(scheduling_strategy=strategy).remote())
            workers = self._wait_for_metadata(actors, nodes_before)
            self._init_train_context(workers, None)
            self._worker_group_state = WorkerGroupState(time.monotonic(), placement, workers, None)
            for callback in self._callbacks:
                callback.after_worker_group_start(self)
            ray.get([a.run_train_fn.remote(context.train_fn_ref) for a in actors])
        except Exception as error:
            _kill(actors, placement)
            self._clear_state()
            for callback in self._callbacks:
                if isinstance(callback, GroupCallback):
                    callback.start_failed(error)
            if isinstance(error, RayError):  # peers of a rank that dies say so before Ray does
                raise WorkerGroupStartupFailedError(str(error)) from error
            raise
        for callback in self._callbacks:
            callback.after_worker_group_training_start(self)

    def _create_placement_group(
        self, scaling_config: ScalingConfig, worker_group_context: WorkerGroupContext
    ) -> PlacementGroupHandle:
        handle = super()._create_placement_group(scaling_config, worker_group_context)
        return _Placement(handle.placement_group)

    def _wait_for_metadata(self, actors: Sequence[Any], nodes_before: set[str]) -> list[Worker]:
        """Return the workers in Ray's order, with their metadata.

        `nodes_before`: nodes that were alive before the actors were created. If one has gone
        since, its actors never answer.
        """
        pending = [actor.get_metadata.remote() for actor in actors]
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while ray.wait(pending, num_returns=len(pending), timeout=POLL_SECONDS)[1]:
            if time.monotonic() > deadline or nodes_before - _alive_node_ids():
                raise GetTimeoutError("a worker did not begin")
        metadata = ray.get(pending)
        resources = self._worker_group_context.resources_per_worker
        workers = [
            Worker(actor, data, resources, placement_group_bundle_index=index)
            for index, (actor, data) in enumerate(zip(actors, metadata, strict=True))
        ]
        return self._assign_worker_ranks(workers)

    def poll_status(self, timeout: float | None = None) -> WorkerGroupPollStatus:
        status = super().poll_status(timeout)
        deadline = time.monotonic() + CAUSE_SECONDS
        while _only_lost_connections(status) and time.monotonic() < deadline:
            time.sleep(0.1)
            status = super().poll_status(timeout)
        return status

    def shutdown(self) -> None:
        for callback in self._callbacks:
            callback.before_worker_group_shutdown(self)
        state = self.get_worker_group_state()
        _kill([worker.actor for worker in state.workers], state.placement_group_handle)
        self._clear_state()
        for callback in self._callbacks:
            callback.after_worker_group_shutdown(self._worker_group_context)


def _kill(actors: Sequence[Any], placement: Any) -> None:
    for actor in actors:
        with contextlib.suppress(Exception):  # it is dead already
            ray.kill(actor)
    placement.shutdown()


def _only_lost_connections(status: WorkerGroupPollStatus) -> bool:
    """Whether ranks report lost connections only, and not to whom."""
    return bool(status.errors) and all(map(lost_connection, status.errors.values()))


def lost_connection(error: Exception) -> bool:
    """Whether a rank reports no more than that another one has gone."""
    return any(message in str(error) for message in LOST_CONNECTION_MESSAGES)


class _Placement(DefaultPlacementGroupHandle):
    """A placement group that is not waited for much longer once one of the nodes that were alive
    when it was created has gone."""

    def __init__(self, group: Any) -> None:
        super().__init__(group)
        self._initial_nodes = _alive_node_ids()

    def wait(self, timeout_seconds: float = 30) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            if super().wait(POLL_SECONDS):
                return True
            if not self._initial_nodes <= _alive_node_ids():
                deadline = min(deadline, time.monotonic() + LOST_NODE_SECONDS)
                self._initial_nodes = set()  # once is enough
        return False


def _alive_node_ids() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
