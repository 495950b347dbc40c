"""A run, wherever its driver is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from launcher.runs.folder import RunFolder
from nanochat.disk_space import free_bytes


class Run(Protocol):
    """A run of this machine or of a cluster."""

    folder: RunFolder
    """On this machine: the run's own, or its mirror."""
    cluster: str
    poll_seconds: float
    notify: Callable[[str], None]
    """Called by `refresh` with a sentence for the user: the connection is lost, or back."""

    @property
    def is_live(self) -> bool:
        """Whether `refresh` asks for the present state. If not, `folder` is as it was seen last,
        and whether its driver has ended is unknown."""

    def is_alive(self) -> bool:
        """Whether its driver is at work."""

    def refresh(self) -> bool:
        """Bring `folder` up to date. False when the run has ended and all of it is here."""

    def request_stop(self) -> None:
        """Ask for a checkpoint and an end after the current step."""

    def free_bytes(self) -> int | None:
        """Free space on the disk that the driver writes to; None if it is not known."""


class LocalRun:
    """One of this machine; or what this machine has of a cluster's, while nobody can be asked."""

    poll_seconds = 0.1

    def __init__(self, folder: RunFolder, cluster: str = "local") -> None:
        self.folder = folder
        self.cluster = cluster
        self.notify: Callable[[str], None] = lambda message: None

    @property
    def is_live(self) -> bool:
        return self.cluster == "local"

    def is_alive(self) -> bool:
        return self.folder.is_locked()

    def refresh(self) -> bool:
        return self.folder.is_locked()

    def request_stop(self) -> None:
        self.folder.stop_request.touch()

    def free_bytes(self) -> int:
        return free_bytes(self.folder.path)


def run_address(run: Run) -> str:
    """As commands take it: RUN, or C/RUN."""
    name = run.folder.name
    return name if run.cluster == "local" else f"{run.cluster}/{name}"
