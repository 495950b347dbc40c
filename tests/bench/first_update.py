"""Measure what the first update of the residual scales does to training.

    python tests/bench/first_update.py --text '~/text/*.parquet' [--steps 200] [--warmup 0 10]
        [--seeds 42 43] [--starts 2]

A fresh model's gradient of RESIDUAL_SCALES is rounding and the norm's epsilon, and AdamW's first
update makes a step of up to the full rate of its sign. Trains d4 with a full step forced upwards,
forced downwards, and left out as nanochat.optimizer does: each with every seed, and from `--starts`
first weights that differ by one part in a million. Runs as many processes of one thread as there
are cores. Prints the bits per byte after the last step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from train import Observer

from launcher.config.recipe import Recipe, load_recipe
from launcher.training.train_config import train_config
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset import PreparedData
from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import parse_source
from nanochat.model import GPT
from nanochat.optimizer.muon_adamw import MuonAdamW
from nanochat.train import train

# Gradients that stand for rounding noise: large against AdamW's epsilon of 1e-10.
FIRST_GRADIENTS = {"up": -1e-6, "down": 1e-6, "left out": 0.0}
PART_IN_A_MILLION = 1e-6


@dataclass(frozen=True)
class Training:
    """One training. `first`: a key of FIRST_GRADIENTS; `start`: which first weights of `seed`."""

    text: str
    prepared: Path
    steps: int
    warmup_steps: int
    seed: int
    first: str
    start: int

    def recipe(self) -> Recipe:
        changes = {
            "warmup_steps": self.warmup_steps,
            "seed": self.seed,
            "evaluation.every_steps": self.steps,
        }
        options = [("--steps", str(self.steps)), ("--data", f"files:{self.text}")]
        options += [("--set", f"{key}={value}") for key, value in changes.items()]
        return load_recipe("d4", options).recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", required=True)
    parser.add_argument("--cache", type=Path, help="where prepared text is kept")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--warmup", type=int, nargs="+", default=[10])
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43])
    parser.add_argument("--starts", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options = [("--data", f"files:{arguments.text}")]
        recipe = load_recipe("d4", options).recipe
        data = prepare(
            parse_source(recipe.data.source, Path.cwd()), cache=arguments.cache or Path(folder),
            sequence_length=recipe.sequence_length, vocab_size=recipe.vocab_size, validation=None,
            threads=os.cpu_count() or 1, on_progress=lambda stage, done, total: None,
        )  # fmt: skip
        trainings = [
            Training(arguments.text, data.path, arguments.steps, warmup_steps, seed, first, start)
            for start in range(arguments.starts)
            for warmup_steps in arguments.warmup
            for seed in arguments.seeds
            for first in FIRST_GRADIENTS
        ]
        with multiprocessing.get_context("spawn").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
            for training, value in pool.imap_unordered(bits_per_byte, trainings):
                print(
                    f"{training.warmup_steps} warm-up steps, seed {training.seed}, first update "
                    f"{training.first}, start {training.start}: {value:.4f}",
                    flush=True,
                )


def bits_per_byte(training: Training) -> tuple[Training, float]:
    """Train, and return the validation bits per byte after the last step."""
    torch.set_num_threads(1)
    build, gradient = GPT.build, FIRST_GRADIENTS[training.first]

    def build_moved(*positional: Any, **options: Any) -> GPT:
        model = build(*positional, **options)
        generator = torch.Generator().manual_seed(training.start)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.mul_(1 + PART_IN_A_MILLION * noise)
        return model

    def force(self: MuonAdamW) -> None:
        for scale in self._residual_scales:
            assert scale.grad is not None
            scale.grad.fill_(gradient)

    GPT.build = build_moved  # type: ignore[method-assign]
    MuonAdamW._clear_rounding_noise = force  # type: ignore[method-assign]
    observer = Observer()
    with tempfile.TemporaryDirectory() as folder:
        train(
            train_config(training.recipe()), PreparedData.load(training.prepared),
            CheckpointFolder(Path(folder)), observer, device=torch.device("cpu"),
            dtype=torch.float32, saves=False,
        )  # fmt: skip
    return training, observer.bpb[training.steps]


if __name__ == "__main__":
    main()
