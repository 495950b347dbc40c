"""Models, batches and runs that take milliseconds, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset import PreparedData
from nanochat.model import GPT
from nanochat.sizes import ModelConfig
from nanochat.train import TrainResult, train
from nanochat.train_config import TrainConfig

VOCAB_SIZE = 512
SEQUENCE_LENGTH = 32


def shape(**changes: Any) -> ModelConfig:
    """Width 128, 4 heads, unless changed."""
    options: dict[str, Any] = {
        "depth": 2,
        "head_dim": 32,
        "sequence_length": SEQUENCE_LENGTH,
        "vocab_size": VOCAB_SIZE,
    }
    return ModelConfig(**{**options, **changes})


def lively(config: ModelConfig, seed: int = 0) -> GPT:
    """A model in which every parameter matters: a fresh one's zeros switch most of it off."""
    model = GPT.build(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.5 if parameter.ndim < 2 else 1.5 * parameter.size(-1) ** -0.5
            parameter += spread * torch.randn(parameter.shape, generator=generator)
    return model


def ids(rows: int, tokens: int, *, vocab_size: int = VOCAB_SIZE, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (rows, tokens), generator=generator)


def plan(**changes: Any) -> TrainConfig:
    """8 steps of 4 rows, evaluated at the start and every 3 steps."""
    options: dict[str, Any] = {
        "model": shape(),
        "steps": 8,
        "tokens_per_step": 4 * SEQUENCE_LENGTH,
        "warmup_steps": 2,
        "evaluate_every_steps": 3,
        "evaluate_tokens": 8 * SEQUENCE_LENGTH,
        "checkpoint_keep": 100,
    }
    return TrainConfig(**{**options, **changes})


class Recorder:
    """An observer that remembers, and asks for a stop in step `stop_at`."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.records: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self._stop_at = stop_at

    def step(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def event(self, kind: str, **details: Any) -> None:
        self.events.append({"kind": kind, **details})

    def stop_requested(self) -> bool:
        return len(self.records) + 1 == self._stop_at

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events]

    def of(self, key: str) -> list[Any]:
        return [record[key] for record in self.records]


def run(
    config: TrainConfig,
    data: PreparedData,
    folder: Path,
    observer: Recorder,
    **options: Any,
) -> TrainResult:
    """`train` on the CPU in float32, with its checkpoints in `folder`."""
    return train(
        config,
        data,
        CheckpointFolder(folder),
        observer,
        device=torch.device("cpu"),
        dtype=torch.float32,
        **options,
    )


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """The same names, and tensors of the same bits."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def newest_tensors(folder: Path) -> dict[str, Tensor]:
    """Weights and optimizer state of the newest checkpoint."""
    checkpoint = CheckpointFolder(folder).newest()
    assert checkpoint is not None
    return checkpoint.model_tensors() | checkpoint.optimizer_tensors()
