"""The Ray that a driver trains on: a private one on this machine, or a cluster's that is up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from launcher.runs.failure import Failure
from launcher.runs.node import RunNode


class RayLost(Exception):
    """A cluster's Ray went away under a driver, or took what it needs (memory): nothing is wrong
    with the run, and another driver resumes it (`launcher.agent.run_restarter`)."""


NODE_ID = "ray.io/node-id"  # the label that Ray gives each node


class Session(Protocol):
    """A Ray that a run can be trained on."""

    nodes: Sequence[RunNode]
    """Those of the run, in the order in which ranks are numbered; "" is this machine."""
    accelerator: str | None
    """What the nodes compute with; None: whatever is found there."""
    storage_path: str
    """A folder for Ray Train's own files."""
    resources: dict[str, float]
    """What one worker asks of Ray."""
    export_metrics: bool
    """Whether somebody reads the metrics port."""
    trains_in_process: bool
    """Whether `train_run` imports Ray Train into this process."""
    profile: str
    """Of the network, a key of `environment.HEALTH_CHECKS`."""

    def set_environment(self) -> None:
        """To be called before any thread of this process imports ray, which reads it once."""

    def connect(self) -> None:
        """Raises RayLost."""

    def acquire_hosts(
        self, run: str, on_wait: Callable[[str], None], is_cancelled: Callable[[], bool]
    ) -> AbstractContextManager[None]:
        """See launcher.raycluster.host_locks.acquire_hosts."""

    def train_run(self, run_folder: str) -> Failure | None:
        """Call `launcher.training.trainer.train_run` in the process where it begins soonest.

        Raises RayLost.
        """
