"""AdamW for tables, head and scalars: upstream's groups, and the state of one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

EPSILON = 1e-10


@dataclass(frozen=True)
class Group:
    """One AdamW group: `rate` before scaling, and by what it is scaled."""

    prefixes: tuple[str, ...]
    rate: float
    betas: tuple[float, float]
    weight_decay: float
    by_width: bool = False
    by_batch: bool = True


GROUPS = (
    Group(("lm_head.",), 0.008, (0.8, 0.96), 0.01, by_width=True),
    Group(("transformer.wte.",), 0.3, (0.8, 0.995), 0.001, by_width=True),
    Group(("value_embeds.",), 0.15, (0.8, 0.995), 0.01, by_width=True),
    Group(("resid_lambdas",), 0.005, (0.8, 0.95), 0.05),
    Group(("x0_lambdas",), 0.5, (0.96, 0.95), 0.0),
    Group(("smear_", "backout_"), 0.2, (0.8, 0.95), 0.0, by_batch=False),
)


class AdamW:
    """One group's parameters and state. torch.optim.AdamW would import torch's compiler, 1.2 s
    before the first step; its functional form, the same kernel, does not."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], group: Group, *, peak_rate: float
    ) -> None:
        self.parameters = parameters
        self._group = group
        self.peak_rate = peak_rate
        self._first = {n: torch.zeros_like(p) for n, p in parameters.items()}
        self._second = {n: torch.zeros_like(p) for n, p in parameters.items()}
        self._steps = {
            n: torch.zeros((), dtype=torch.float32, device=p.device) for n, p in parameters.items()
        }

    def step(self, fraction: float) -> None:
        """`fraction` of the peak rate. Gradients are dropped."""
        parameters: list[Tensor] = list(self.parameters.values())
        gradients = [p.grad for p in parameters if p.grad is not None]
        assert len(gradients) == len(parameters)
        beta1, beta2 = self._group.betas
        adamw(
            parameters,
            gradients,
            list(self._first.values()),
            list(self._second.values()),
            [],
            list(self._steps.values()),
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=self.peak_rate * fraction,
            weight_decay=self._group.weight_decay,
            eps=EPSILON,
            maximize=False,
        )
        for parameter in parameters:
            parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        state = {f"adamw.step.{n}": t for n, t in self._steps.items()}
        state |= {f"adamw.exp_avg.{n}": t for n, t in self._first.items()}
        return state | {f"adamw.exp_avg_sq.{n}": t for n, t in self._second.items()}
