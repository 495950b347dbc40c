"""What a run is: its settings, and what makes two runs the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from nanochat.checkpoint import identity_difference
from nanochat.dataset import PreparedData
from nanochat.sizes import ModelConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """What to train and for how long. `micro_batch` is in rows per pass and rank."""

    model: ModelConfig
    steps: int
    tokens_per_step: int
    warmup_steps: int
    seed: int = 42
    micro_batch: int | None = None
    evaluate_every_steps: int | None = None
    evaluate_tokens: int = 65_536
    checkpoint_every_steps: int | None = None
    checkpoint_every_minutes: float | None = None
    checkpoint_keep: int = 2
    extended_from: tuple[int, ...] = ()  # values of `steps` before the run was openly prolonged

    @property
    def rows_per_step(self) -> int:
        return self.tokens_per_step // self.model.sequence_length

    @property
    def saves_on_the_way(self) -> bool:
        """Whether there may be checkpoints before the last step."""
        every = self.checkpoint_every_steps
        return self.checkpoint_every_minutes is not None or (
            every is not None and every < self.steps
        )

    def identity(self, data: PreparedData, dtype: torch.dtype) -> dict[str, Any]:
        """What makes two runs the same run: a checkpoint of any other is refused."""
        return {
            **{f"model.{key}": value for key, value in asdict(self.model).items()},
            "steps": self.steps,
            "tokens_per_step": self.tokens_per_step,
            "warmup_steps": self.warmup_steps,
            "seed": self.seed,
            "dtype": str(dtype).removeprefix("torch."),
            **data.identity(),
        }

    def difference(self, saved: Mapping[str, Any], identity: Mapping[str, Any]) -> str:
        """What keeps the checkpoint of the identity `saved` from being this run's, as lines; empty
        where nothing does. `identity`: this run's."""
        if saved.get("steps") in self.extended_from:
            saved = {**saved, "steps": self.steps}
        return identity_difference(saved, identity)
