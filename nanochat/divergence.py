"""A loss that has left for good: above that of a model that knows nothing, step after step."""

from __future__ import annotations

import math

MARGIN_NATS = 1.0
STEPS_IN_A_ROW = 10


class LossWatch:
    """Watches the losses of a run, one per step.

    An untrained model loses ln(vocabulary) on any token, 10.40 nats here, and has not been seen
    more than XX above it. What a model has learnt is gone when it is worse than that by a margin;
    a spike comes back within a few steps.
    """

    def __init__(self, vocab_size: int) -> None:
        self._limit = math.log(vocab_size) + MARGIN_NATS
        self._above = 0

    def add(self, loss: float) -> None:
        self._above = self._above + 1 if loss > self._limit else 0

    @property
    def suspicious(self) -> bool:
        """The last step's loss was above: what is saved now might be lost already."""
        return self._above > 0

    @property
    def exploded(self) -> bool:
        return self._above >= STEPS_IN_A_ROW

    def words(self, step: int) -> str:
        return (
            f"above {self._limit:.2f} nats since step {step - self._above + 1}, an untrained "
            f"model has {self._limit - MARGIN_NATS:.2f}"
        )
