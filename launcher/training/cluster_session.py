"""The Ray of a cluster that is up, for a driver that runs as a job on the head."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from launcher.raycluster.host_locks import acquire_hosts
from launcher.raycluster.spec import ClusterSpec
from launcher.runs.failure import Failure
from launcher.runs.node import RunNode
from launcher.training.session import NODE_ID, RayLost, Session

JOB_CONFIG_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class ClusterSession:
    """For a driver that runs as a job on the head."""

    export_metrics = True
    trains_in_process = False

    def __init__(
        self, folder: Path, spec: ClusterSpec, nodes: Sequence[RunNode], *, pool: str | None
    ) -> None:
        """`folder`: the cluster's. `nodes`: those of the run, the head first."""
        self._folder = folder
        self._spec = spec
        self.nodes = nodes
        self.accelerator: str | None = nodes[0].accelerator
        self.profile = spec.profile
        self.storage_path = str(Path(os.environ["RAY_TMPDIR"]) / "train")
        self.resources = {"rank_slot": 1.0} | ({f"pool_{pool}": 1.0} if pool else {})

    def set_environment(self) -> None:
        # An actor with an environment of its own, even an empty one, cannot begin in a worker
        # that has been started ahead: the job's metadata stays, its environment goes.
        config = json.loads(os.environ.get(JOB_CONFIG_VARIABLE, "{}"))
        os.environ[JOB_CONFIG_VARIABLE] = json.dumps({"metadata": config.get("metadata", {})})
        os.environ["RAY_ADDRESS"] = f"{self._spec.head.address}:{self._spec.ports.gcs}"

    def connect(self) -> None:
        import ray

        try:
            ray.init(logging_level="warning", _node_ip_address=self._spec.head.address)
        except (OSError, RuntimeError, ray.exceptions.RayError) as error:
            raise RayLost(str(error)) from error

    def acquire_hosts(
        self, run: str, on_wait: Callable[[str], None], is_cancelled: Callable[[], bool]
    ) -> AbstractContextManager[None]:
        return acquire_hosts(
            self._folder,
            [node.name for node in self.nodes],
            run,
            on_wait=on_wait,
            is_cancelled=is_cancelled,
        )

    def train_run(self, run_folder: str) -> Failure | None:
        """In a worker on this host that has Ray Train imported: 3 s less on one core."""
        import ray

        this_node = {NODE_ID: ray.get_runtime_context().get_node_id()}
        task = ray.remote(num_cpus=0, max_retries=0, label_selector=this_node)(_train_run)
        try:
            failure: Failure | None = ray.get(task.remote(run_folder, self))
        except ray.exceptions.RayError as error:
            # What the task itself raised is wrapped; the death of its controller may be in there.
            cause = getattr(error, "cause", None)
            if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(
                cause, ray.exceptions.RayError
            ):
                raise
            raise RayLost(str(error)) from error
        return failure


def _train_run(run_folder: str, session: Session) -> Failure | None:
    from launcher.training.trainer import train_run

    return train_run(run_folder, session)
