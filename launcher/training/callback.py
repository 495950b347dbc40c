"""What follows a run's groups in the controller's process."""

from __future__ import annotations

from ray.train.v2._internal.execution.callback import WorkerGroupCallback


class GroupCallback(WorkerGroupCallback):
    def start_failed(self, error: Exception) -> None:
        """A group came to nothing; Ray Train's own hooks do not say so."""
