"""How Ray Train's controller forms a run's groups: of all its nodes, or with `elastic` of those
that are there.

Ray's own elastic policy counts slots on whatever nodes, drained and foreign ones too, and forms a
group anew without a checkpoint. Here a group is pinned to nodes; where one has come or is drained,
rank 0 is asked to save first (`RunFolder.regroup_request`), and no step is lost.
"""

from __future__ import annotations

import time
from typing import Any

from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import (
    NoopDecision,
    ResizeDecision,
    ScalingDecision,
    ScalingPolicy,
)
from ray.train.v2._internal.execution.worker_group import (
    WorkerGroupPollStatus,
    WorkerGroupState,
)

from launcher.training.failure_policy import RunCancelled
from launcher.training.live_nodes import RunNodes
from launcher.training.session import NODE_ID
from launcher.training.worker import REGROUP

POLL_SECONDS = 0.5  # between two looks at which nodes are available
# A node that has joined still starts the process that its rank will begin in, 5 s on one core, and
# the others train on meanwhile. One that comes and goes is not taken.
SETTLE_SECONDS = 8.0
JOIN_SECONDS = 3.0  # Ray may hear of a node that is up a moment later than the client does


class LiveNodesPolicy(ScalingPolicy):
    """Groups of the run's nodes, nothing of autoscaling."""

    def __init__(self, scaling_config: ScalingConfig, nodes: RunNodes) -> None:
        super().__init__(scaling_config)
        self._nodes = nodes
        self._started_at = time.monotonic()
        self._polled_at = 0.0
        self._differs_since: float | None = None

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        self._nodes.folder.regroup_request.unlink(missing_ok=True)
        if self._nodes.folder.stop_request.exists():
            raise RunCancelled  # the group before is dead: there is nothing to save
        joining = not self._nodes.members and time.monotonic() - self._started_at < JOIN_SECONDS
        if not (joining and self._nodes.missing()) and self._nodes.select_members():
            return self._resize()
        time.sleep(POLL_SECONDS)  # nothing else happens in the controller's process
        return NoopDecision()

    def on_controller_start_worker_group(self, **_: Any) -> dict[str, str]:
        self._nodes.write_resize()  # the group before has ended, and its end is written
        node_ids = [node.node_id for node in self._nodes.members.values()]
        return {NODE_ID: f"in({','.join(node_ids)})"}  # with a space in it Ray waits for ever

    def make_decision_for_running_worker_group(
        self, worker_group_state: WorkerGroupState, worker_group_status: WorkerGroupPollStatus
    ) -> ScalingDecision:
        if ended_for_regroup(worker_group_status):
            # Saved, on every host: the next decision is about a group that is not running.
            self._nodes.folder.regroup_request.unlink(missing_ok=True)
            return self._resize() if self._nodes.select_members() else NoopDecision()
        now = time.monotonic()
        if now - self._polled_at > POLL_SECONDS:
            self._polled_at = now
            self._poll_nodes(now)
        return NoopDecision()

    def _poll_nodes(self, now: float) -> None:
        if not self._nodes.should_regroup():
            self._differs_since = None
            return
        self._differs_since = self._differs_since or now
        settled = now - self._differs_since > SETTLE_SECONDS
        drained = not self._nodes.members.keys() <= self._nodes.available().keys()
        if settled or drained:
            self._nodes.folder.regroup_request.touch()

    def _resize(self) -> ResizeDecision:
        self._differs_since = None
        return ResizeDecision(
            num_workers=self._nodes.world_size,
            resources_per_worker=self.scaling_config._resources_per_worker_not_none,
        )

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _get_num_workers_for_resource_request(self) -> int:
        raise NotImplementedError  # there is no autoscaler to ask

    def _cancel_resource_request(self) -> None:
        pass


def ended_for_regroup(status: WorkerGroupPollStatus) -> bool:
    """Whether all ranks have saved and ended, to continue in another group."""
    return status.finished and any(
        worker.return_value == REGROUP for worker in status.worker_statuses.values()
    )
