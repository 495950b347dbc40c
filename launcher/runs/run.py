"""A run, wherever its driver is."""

from __future__ import annotations

from typing import Protocol

from launcher.runs.folder import RunFolder
from nanochat.disk_space import free_bytes


class Run(Protocol):
    """`folder` is on this machine: the run's own, or its mirror. `is_asked`: whether `refresh`
    says how the run is; else `folder` is as it was seen last, and a driver's end is unknown."""

    folder: RunFolder
    cluster: str
    poll_seconds: float

    @property
    def is_asked(self) -> bool: ...

    def is_alive(self) -> bool:
        """Whether its driver is at work."""

    def refresh(self) -> bool:
        """Bring `folder` up to date. False when the run has ended and all of it is here."""

    def request_stop(self) -> None:
        """Ask for a checkpoint and an end after the current step."""

    def free_bytes(self) -> int:
        """Room on the disk that the driver writes to."""


class LocalRun:
    """One of this machine; or what this machine has of a cluster's, while nobody can be asked."""

    poll_seconds = 0.1

    def __init__(self, folder: RunFolder, cluster: str = "local") -> None:
        self.folder = folder
        self.cluster = cluster

    @property
    def is_asked(self) -> bool:
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
