"""The Ray that a driver trains on: a private one on this machine, or a cluster's that is up."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from launcher.raycluster.slots import take_turn
from launcher.raycluster.spec import ClusterSpec, NodeSpec


class RayLost(Exception):
    """A cluster's Ray went away under a driver, or took what it needs (memory): nothing is wrong
    with the run, and another driver goes on with it (`keeper`)."""


Failure = tuple[str, str | None] | None  # what went wrong, and how to mend it

NODE_ID = "ray.io/node-id"  # the label that Ray gives each node
JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


class Session(Protocol):
    """`threads`: of one worker, by the name of its node, in the order that ranks are dealt out in;
    `shares`: weights of the rows that the nodes take.

    `accelerator`: what the nodes have to compute with; None: whatever is there. `notes`: a folder
    of Ray Train's. `resources`: what one worker asks for. `exports_metrics`: somebody scrapes
    gauges. `trains_here`: `train_run` imports Ray Train into this process. `profile`: of the
    network, a key of `environment.HEALTH`.
    """

    workers: int
    threads: Mapping[str, int]
    shares: Mapping[str, float]
    accelerator: str | None
    notes: str
    resources: dict[str, float]
    exports_metrics: bool
    trains_here: bool
    profile: str

    def set_environment(self) -> None:
        """To be called before any thread of this process imports ray, which reads it once."""

    def connect(self) -> None:
        """Raises RayLost."""

    def turn(
        self, run: str, waits_for: Callable[[str], None], given_up: Callable[[], bool]
    ) -> AbstractContextManager[None]:
        """See launcher.raycluster.slots."""

    def train_run(self, run_folder: str) -> Failure:
        """launcher.training.trainer's, in the process where it begins soonest. Raises RayLost."""


class ClusterSession:
    """For a driver that runs as a job on the head."""

    exports_metrics = True
    trains_here = False

    def __init__(
        self, folder: Path, spec: ClusterSpec, nodes: Sequence[NodeSpec], *, pool: str | None
    ) -> None:
        """`folder`: the cluster's. `nodes`: those of the run, the head first."""
        self._folder = folder
        self._spec = spec
        self.threads: Mapping[str, int] = {
            node.name: max(1, node.cpus // node.slots) for node in nodes
        }
        self.shares: Mapping[str, float] = {node.name: node.share for node in nodes}
        self.accelerator: str | None = nodes[0].accelerator
        self.profile = spec.profile
        self.workers = sum(node.slots for node in nodes)
        self.notes = str(Path(os.environ["RAY_TMPDIR"]) / "train")
        self.resources = {"rank_slot": 1.0} | ({f"pool_{pool}": 1.0} if pool else {})

    def set_environment(self) -> None:
        # An actor with an environment of its own, even an empty one, cannot begin in a worker
        # that has been started ahead: the job's metadata stays, its environment goes.
        config = json.loads(os.environ.get(JOB_CONFIG, "{}"))
        os.environ[JOB_CONFIG] = json.dumps({"metadata": config.get("metadata", {})})
        os.environ["RAY_ADDRESS"] = f"{self._spec.head.address}:{self._spec.ports.gcs}"

    def connect(self) -> None:
        import ray

        try:
            ray.init(logging_level="warning", _node_ip_address=self._spec.head.address)
        except (OSError, RuntimeError, ray.exceptions.RayError) as error:
            raise RayLost(str(error)) from error

    def turn(
        self, run: str, waits_for: Callable[[str], None], given_up: Callable[[], bool]
    ) -> AbstractContextManager[None]:
        return take_turn(
            self._folder, list(self.threads), run, waits_for=waits_for, given_up=given_up
        )

    def train_run(self, run_folder: str) -> Failure:
        """In a worker on this host that has Ray Train imported: 3 s less on one core."""
        import ray

        here = {NODE_ID: ray.get_runtime_context().get_node_id()}
        task = ray.remote(num_cpus=0, max_retries=0, label_selector=here)(_train_run)
        try:
            failure: Failure = ray.get(task.remote(run_folder, self))
        except ray.exceptions.RayError as error:
            # What the task itself raised is wrapped; the death of its controller may be in there.
            cause = getattr(error, "cause", None)
            if isinstance(error, ray.exceptions.RayTaskError) and not isinstance(
                cause, ray.exceptions.RayError
            ):
                raise
            raise RayLost(str(error)) from error
        return failure


def _train_run(run_folder: str, session: Session) -> Failure:
    from launcher.training.trainer import train_run

    return train_run(run_folder, session)
