"""The Ray that a driver trains on: a private one on this machine, or a cluster's that is up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol


class RayLost(Exception):
    """A cluster's Ray went away under a driver, or took what it needs (memory): nothing is wrong
    with the run, and another driver goes on with it (`keeper`)."""


Failure = tuple[str, str | None] | None  # what went wrong, and how to mend it

NODE_ID = "ray.io/node-id"  # the label that Ray gives each node


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
        """See launcher.raycluster.host_locks."""

    def train_run(self, run_folder: str) -> Failure:
        """launcher.training.trainer's, in the process where it begins soonest. Raises RayLost."""
