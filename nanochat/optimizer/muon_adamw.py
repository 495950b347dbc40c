"""The optimizer of a nanochat model: which parameter is updated how, and its state as tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nanochat.model import GPT
from nanochat.optimizer.adamw import GROUPS, AdamW
from nanochat.optimizer.muon import muon_update, variance_shape
from nanochat.optimizer.schedule import Schedule
from nanochat.scaling import learning_rate_scale, muon_weight_decay

MUON_PREFIX = "transformer.h."
MATRIX_RATE = 0.02
REFERENCE_DIM = 768  # AdamW's rates were tuned at this width and go with 1 / sqrt(dim)
# While every `c_proj` is zero, as in a fresh model, the residual stream is a multiple of x0 (the
# smeared embeddings), and the norm before the head divides that multiple out. What is left of these
# gradients is rounding and the norm's epsilon: up to 5e-10 in float32 and 7e-6 in bfloat16, against
# 1e-5 of real gradient after one update (d4). AdamW's first update, rate * g / (|g| + 1e-10), would
# be up to a full step, in a direction that differs between kinds of CPU.
RESIDUAL_SCALES = ("resid_lambdas", "x0_lambdas", "backout_lambda")


class MuonAdamW:
    """Muon for every matrix inside the blocks, AdamW for tables, head and scalars.

    Every rank holds the whole state and makes the same update from the same averaged gradients,
    so any one rank's state is a whole checkpoint. Parameters stay bit-equal over ranks whose CPUs
    are of one kind; between unlike ones they differ by rounding (README, "The same losses").
    """

    def __init__(self, model: GPT, *, tokens_per_step: int, schedule: Schedule) -> None:
        self.schedule = schedule
        self._low_precision = model.dtype == torch.bfloat16
        self._residual_scales = [model.get_parameter(name) for name in RESIDUAL_SCALES]
        by_batch = learning_rate_scale(tokens_per_step)
        by_width = (model.config.dim / REFERENCE_DIM) ** -0.5
        self._matrix_rate = MATRIX_RATE * by_batch
        self._weight_decay = muon_weight_decay(model.config, tokens_per_step)

        parameters = dict(model.named_parameters())
        self._matrices = {n: p for n, p in parameters.items() if n.startswith(MUON_PREFIX)}
        self._momentum = {n: torch.zeros_like(p) for n, p in self._matrices.items()}
        self._variance = {
            n: p.new_zeros(variance_shape(*p.shape)) for n, p in self._matrices.items()
        }
        others = {n: p for n, p in parameters.items() if n not in self._matrices}
        self._adamw = [
            AdamW(
                {n: p for n, p in others.items() if n.startswith(group.prefixes)},
                group,
                peak_rate=group.rate
                * (by_width if group.by_width else 1.0)
                * (by_batch if group.by_batch else 1.0),
            )
            for group in GROUPS
        ]

    @torch.no_grad()
    def step(self, step: int) -> float:
        """Update all parameters from their gradients and drop these; `step` updates came before.

        Returns the learning rate of the matrices.
        """
        if step == 0:
            self._clear_rounding_noise()
        fraction = self.schedule.learning_rate(step)
        for group in self._adamw:
            group.step(fraction)
        # One matrix at a time: no slower than stacks of equal shapes on a CPU (d4 0.15 s against
        # 0.9-1.2 s, d8 2.2 s against 2.1 s) and without their copies.
        for name, weight in self._matrices.items():
            assert weight.grad is not None
            muon_update(
                weight,
                weight.grad,
                self._momentum[name],
                self._variance[name],
                learning_rate=self._matrix_rate * fraction,
                momentum=self.schedule.momentum(step),
                weight_decay=self._weight_decay * self.schedule.weight_decay(step),
                low_precision=self._low_precision,
            )
            weight.grad = None
        return self._matrix_rate * fraction

    def _clear_rounding_noise(self) -> None:
        """Zero the gradients of RESIDUAL_SCALES if every `c_proj` is zero, as in a fresh model."""
        if not any(p.any() for n, p in self._matrices.items() if n.endswith(".c_proj.weight")):
            for scale in self._residual_scales:
                assert scale.grad is not None
                scale.grad.zero_()

    def state_tensors(self) -> dict[str, Tensor]:
        """The whole state by name, not copied: `muon.momentum.NAME`, `adamw.exp_avg.NAME`, ..."""
        state = {f"muon.momentum.{n}": t for n, t in self._momentum.items()}
        state |= {f"muon.variance.{n}": t for n, t in self._variance.items()}
        for group in self._adamw:
            state |= group.state_tensors()
        return state

    def load_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a state of the same model. Raises KeyError where a tensor is missing."""
        for name, tensor in self.state_tensors().items():
            tensor.copy_(tensors[name])
