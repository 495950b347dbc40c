"""Failures after which another attempt would end where this one did."""

from __future__ import annotations

from typing import Any

from ray.train import FailureConfig, TrainingFailedError
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2._internal.execution.failure_handling.default import DefaultFailurePolicy

from launcher.training.live_nodes import RunNodes


class NonRetryableError(Exception):
    """Raised by a worker. Ray carries it to the driver, whatever host the worker was on."""

    def __init__(self, message: str, fix: str | None) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix


class RunCancelled(TrainingFailedError):
    """A stop was asked for while a run waited for its nodes."""


class RunFailurePolicy(DefaultFailurePolicy):
    """Ray Train's own, except for a NonRetryableError of any worker, and for nodes that were lost:
    those are no failures of the run, however many there are."""

    def __init__(self, failure_config: FailureConfig, nodes: RunNodes | None) -> None:
        super().__init__(failure_config)
        self._nodes = nodes

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        if isinstance(training_failed_error, RunCancelled) or non_retryable_error(
            training_failed_error
        ):
            return FailureDecision.RAISE
        if self._nodes is not None and self._nodes.has_lost_member():
            return FailureDecision.RETRY
        return super().make_decision(training_failed_error)


def non_retryable_error(error: TrainingFailedError) -> NonRetryableError | None:
    """The one among the failures of the workers."""
    failures: dict[int, Any] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = getattr(failure, "_base_exc", failure)  # as Ray wraps what a train function raises
        if isinstance(cause, NonRetryableError):
            return cause
    return None
