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
from launcher.training.process_group import NODE
from launcher.training.worker_preload import seconds_since_import

LOOK_SECONDS = 0.5  # between two looks at which nodes are there
# Before a placement on a node that has gone is taken back. While Ray 2.60 still asks its nodes,
# taking it back leaves the slots of the others reserved for good: no group began after that.
GONE_SECONDS = 5.0
PLACE_SECONDS = 15.0  # then it is looked again which nodes are there
START_SECONDS = 120.0  # a fresh process imports for 5 s on one core, for 30 from a cold disk
# A process that dies is known by its peers' words a moment before Ray's.
WORD_SECONDS = 1.0
LOST_CONNECTION = ("Connection closed by peer", "Connection reset", "Broken pipe", "Socket closed")


@dataclass(frozen=True)
class WorkerPlace(ActorMetadata):
    """`node`: its name, empty on a machine of its own. `imported_ago`: seconds since its process
    had all modules; None where it imported none ahead."""

    node: str
    imported_ago: float | None


class RayTrainWorkerOnNode(RayTrainWorker):
    def get_metadata(self) -> WorkerPlace:
        known = vars(super().get_metadata())
        return WorkerPlace(
            **known, node=os.environ.get(NODE, ""), imported_ago=seconds_since_import()
        )


class RunWorkerGroup(WorkerGroup):
    def _start(self) -> None:
        """Raises WorkerGroupStartup...Error where it is to be tried again; nothing is left then."""
        context = self._worker_group_context
        for callback in self._callbacks:
            callback.before_worker_group_start(context)
        there = _alive()
        place = self._create_placement_group(self._train_run_context.scaling_config, context)
        actors: list[Any] = []
        try:
            if not place.wait(PLACE_SECONDS):
                raise WorkerGroupStartupFailedError(
                    "its nodes have no room for all ranks, or one has gone"
                )
            asks = bundle_to_remote_args(context.resources_per_worker)
            actor = ray.remote(**asks)(RayTrainWorkerOnNode)
            for number in range(context.num_workers):
                spot = PlacementGroupSchedulingStrategy(place.placement_group, number)
                actors.append(actor.options(scheduling_strategy=spot).remote())
            workers = self._know(actors, there)
            self._init_train_context(workers, None)
            self._worker_group_state = WorkerGroupState(time.monotonic(), place, workers, None)
            for callback in self._callbacks:
                callback.after_worker_group_start(self)
            ray.get([a.run_train_fn.remote(context.train_fn_ref) for a in actors])
        except Exception as error:
            _end(actors, place)
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

    def _know(self, actors: Sequence[Any], there: set[str]) -> list[Worker]:
        """In Ray's order, with what they say of their places. `there`: nodes that were alive before
        actors were asked for: those of one that has gone since never answer."""
        asked = [actor.get_metadata.remote() for actor in actors]
        until = time.monotonic() + START_SECONDS
        while ray.wait(asked, num_returns=len(asked), timeout=LOOK_SECONDS)[1]:
            if time.monotonic() > until or there - _alive():
                raise GetTimeoutError("a worker did not begin")
        places = ray.get(asked)
        resources = self._worker_group_context.resources_per_worker
        workers = [
            Worker(actor, place, resources, placement_group_bundle_index=number)
            for number, (actor, place) in enumerate(zip(actors, places, strict=True))
        ]
        return self._assign_worker_ranks(workers)

    def poll_status(self, timeout: float | None = None) -> WorkerGroupPollStatus:
        status = super().poll_status(timeout)
        until = time.monotonic() + WORD_SECONDS
        while _only_words_of_peers(status) and time.monotonic() < until:
            time.sleep(0.1)
            status = super().poll_status(timeout)
        return status

    def shutdown(self) -> None:
        for callback in self._callbacks:
            callback.before_worker_group_shutdown(self)
        state = self.get_worker_group_state()
        _end([worker.actor for worker in state.workers], state.placement_group_handle)
        self._clear_state()
        for callback in self._callbacks:
            callback.after_worker_group_shutdown(self._worker_group_context)


def _end(actors: Sequence[Any], place: Any) -> None:
    for actor in actors:
        with contextlib.suppress(Exception):  # it is dead already
            ray.kill(actor)
    place.shutdown()


def _only_words_of_peers(status: WorkerGroupPollStatus) -> bool:
    """Whether all that is known is that connections were lost, and not to whom."""
    return bool(status.errors) and all(map(lost_connection, status.errors.values()))


def lost_connection(error: Exception) -> bool:
    """Whether a rank says no more than that another one has gone."""
    return any(words in str(error) for words in LOST_CONNECTION)


class _Placement(DefaultPlacementGroupHandle):
    """Not waited for much longer once a node has gone that was alive when it was made."""

    def __init__(self, group: Any) -> None:
        super().__init__(group)
        self._before = _alive()

    def wait(self, timeout_seconds: float = 30) -> bool:
        until = time.monotonic() + timeout_seconds
        while time.monotonic() < until:
            if super().wait(LOOK_SECONDS):
                return True
            if not self._before <= _alive():
                until = min(until, time.monotonic() + GONE_SECONDS)
                self._before = set()  # once is enough
        return False


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}
