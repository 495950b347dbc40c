"""Learning rate, momentum and weight decay as functions of the step. Constants are upstream's.

All depend on the length of the run, which is therefore part of a checkpoint's identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

WARMDOWN_FRACTION = 0.65  # of the steps, at the end
FINAL_LEARNING_RATE = 0.05  # of the peak, reached at the last step
MOMENTUM_START, MOMENTUM_PEAK, MOMENTUM_END = 0.85, 0.97, 0.90
MOMENTUM_WARMUP_STEPS = 400


@dataclass(frozen=True)
class Schedule:
    """`step` counts completed updates: the first update is made at step 0."""

    steps: int
    warmup_steps: int

    @property
    def _warmdown_steps(self) -> int:
        return round(WARMDOWN_FRACTION * self.steps)

    def learning_rate(self, step: int) -> float:
        """Fraction of the peak: linear up, flat, linear down to 5%."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        left = self.steps - step
        if left >= self._warmdown_steps:
            return 1.0
        fraction = left / self._warmdown_steps
        return fraction + (1 - fraction) * FINAL_LEARNING_RATE

    def momentum(self, step: int) -> float:
        """Muon's momentum: 0.85 up to 0.97 over 400 steps, down to 0.90 in the warmdown."""
        if step < MOMENTUM_WARMUP_STEPS:
            return _between(MOMENTUM_START, MOMENTUM_PEAK, step / MOMENTUM_WARMUP_STEPS)
        start = self.steps - self._warmdown_steps
        if step < start:
            return MOMENTUM_PEAK
        return _between(MOMENTUM_PEAK, MOMENTUM_END, (step - start) / self._warmdown_steps)

    def weight_decay(self, step: int) -> float:
        """Fraction of Muon's weight decay: a cosine from 1 to 0."""
        return 0.5 * (1 + math.cos(math.pi * step / self.steps))


def _between(start: float, end: float, fraction: float) -> float:
    return start * (1 - fraction) + end * fraction
