"""Failures after which another attempt would end where this one did."""

from __future__ import annotations

from typing import Any

from ray.train import TrainingFailedError
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2._internal.execution.failure_handling.default import DefaultFailurePolicy


class FinalFailure(Exception):
    """Raised by a worker. Ray carries it to the driver, whatever host the worker was on."""

    def __init__(self, message: str, fix: str | None) -> None:
        super().__init__(message, fix)
        self.message = message
        self.fix = fix


class FinalFailurePolicy(DefaultFailurePolicy):
    """Ray Train's own, but for a FinalFailure of any worker."""

    def make_decision(self, training_failed_error: TrainingFailedError) -> FailureDecision:
        if final_failure(training_failed_error) is not None:
            return FailureDecision.RAISE
        return super().make_decision(training_failed_error)


def final_failure(error: TrainingFailedError) -> FinalFailure | None:
    """The one among the failures of the workers."""
    failures: dict[int, Any] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause = getattr(failure, "_base_exc", failure)  # as Ray wraps what a train function raises
        if isinstance(cause, FinalFailure):
            return cause
    return None
