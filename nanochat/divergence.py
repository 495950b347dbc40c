"""Training that has gone wrong: numbers that are none, and a loss that has left for good, as bad as
that of a model that knows nothing, step after step."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import torch
from torch import Tensor

from nanochat.errors import TrainingError

STEPS_IN_A_ROW = 10
MARGIN_NATS = 1.0  # above the best mean of as many steps
SLACK_NATS = 0.1  # a model that has lost everything says the same of all tokens, or nearly


class LossWatch:
    """Watches the losses of a run, one per step.

    A step is bad whose loss is not below that of an untrained model, ln(vocabulary), and is far
    above the best mean so far; at the start that is ln(vocabulary) too. Runs of a tiny model at
    100 times its learning rates came back from spikes of 17 nats, ln(vocabulary) being 6.2, after
    4 and 5 bad steps in a row; at 1,000 and 10,000 times they stayed above, or exactly there. At
    ordinary rates d4 has not been seen more than 0.3 nats above, in its warm-up.
    """

    def __init__(self, vocab_size: int, best: float = math.inf) -> None:
        """`best`: the best mean of a run that is resumed."""
        self._untrained = math.log(vocab_size)
        self.best = min(self._untrained, best)
        self._recent: deque[float] = deque(maxlen=STEPS_IN_A_ROW)
        self._bad = 0

    def add(self, loss: float) -> None:
        limit = max(self._untrained - SLACK_NATS, self.best + MARGIN_NATS)
        self._bad = self._bad + 1 if loss > limit else 0
        self._recent.append(loss)
        if len(self._recent) == STEPS_IN_A_ROW:
            self.best = min(self.best, sum(self._recent) / STEPS_IN_A_ROW)

    @property
    def spiking(self) -> bool:
        """The last step was bad: what is saved now may be lost already."""
        return self._bad > 0

    @property
    def diverged(self) -> bool:
        return self._bad >= STEPS_IN_A_ROW

    def message(self, step: int) -> str:
        """Describe at `step` how the loss has diverged."""
        mean = sum(self._recent) / len(self._recent)
        return (
            f"{mean:.2f} nats from step {step - self._bad + 1} on, as bad as an untrained model's "
            f"{self._untrained:.2f}"
            + (f"; it was {self.best:.2f} before" if self.best < self._untrained else "")
        )


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """A sum has room for all of them, and is no number where one is none."""
    with torch.no_grad():
        sums = [tensor.sum(dtype=torch.float32) for tensor in tensors]
        return bool(torch.stack(sums).isfinite().all())


def diverged_error(what: str, *, newest: int, dtype: str, tokens_per_step: int) -> TrainingError:
    """`newest`: the step of the last good checkpoint, or 0. Resuming from it would give the same
    losses, bit for bit: only another run can do better."""
    saved = f"the newest checkpoint is of step {newest}" if newest else "there is no checkpoint"
    ways = [] if dtype == "float32" else ["--set dtype=float32"]
    ways.append(f"--set tokens_per_step={2 * tokens_per_step}")
    return TrainingError(
        f"{what}; {saved}",
        fix=f"start a new run with {' or '.join(ways)}: resuming would diverge again "
        "(runs are deterministic)",
    )
