"""Whether training suffers from the first update of the residual factors (RESIDUAL_FACTORS).

    python tests/bench/first_update.py --text '~/text/*.parquet' [--steps 100] [--warmup 0 10]

A fresh model's gradient of these factors is zero except for rounding, and AdamW's first update
makes a step of up to the full rate of its sign. Trains d4 with that step forced upwards, forced
downwards, and left out as nanochat.optimizer does, from several first weights that differ by one
part in a million, in as many processes of one thread as there are cores. Prints the bits per byte
after the last step.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from train import Observer

from launcher.config.recipe import load_recipe
from launcher.training.train_config import train_config
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset import PreparedData
from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import parse_source
from nanochat.model import GPT
from nanochat.optimizer import MuonAdamW
from nanochat.train import train

# Gradients that stand for rounding noise: large against AdamW's epsilon of 1e-10.
FIRST_GRADIENTS = {"up": -1e-6, "down": 1e-6, "left out": 0.0}
PART_IN_A_MILLION = 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--warmup", type=int, nargs="+", default=[0, 10])
    parser.add_argument("--starts", type=int, default=2, help="first weights of each arm")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = recipe_of(arguments.text, arguments.steps, 0)
        data = prepare(
            parse_source(recipe.data.source, Path.cwd()), cache=Path(folder),
            sequence_length=recipe.sequence_length, vocab_size=recipe.vocab_size, validation=None,
            threads=os.cpu_count() or 1, on_progress=lambda stage, done, total: None,
        )  # fmt: skip
        arms = list(itertools.product(arguments.warmup, FIRST_GRADIENTS))
        jobs = [
            (str(data.path), arguments.text, arguments.steps, warmup, name, start)
            for start in range(arguments.starts)
            for warmup, name in arms
        ]
        with multiprocessing.get_context("spawn").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
            found = dict(zip(jobs, pool.starmap(bits_per_byte, jobs, chunksize=1), strict=True))
    for warmup, name in arms:
        values = [v for job, v in found.items() if job[3:5] == (warmup, name)]
        print(
            f"{warmup} warm-up steps, first update {name}: {statistics.mean(values):.4f} "
            f"({', '.join(f'{value:.4f}' for value in values)})"
        )


def recipe_of(text: str, steps: int, warmup: int) -> Any:
    options = [("--steps", str(steps)), ("--data", f"files:{text}")]
    options += [("--set", f"warmup_steps={warmup}"), ("--set", f"evaluation.every_steps={steps}")]
    return load_recipe("d4", options).recipe


def bits_per_byte(data: str, text: str, steps: int, warmup: int, name: str, start: int) -> float:
    """Train one arm and return the validation bits per byte after the last step."""
    torch.set_num_threads(1)
    build, gradient = GPT.build, FIRST_GRADIENTS[name]

    def build_moved(*positional: Any, **options: Any) -> GPT:
        model = build(*positional, **options)
        generator = torch.Generator().manual_seed(start)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.mul_(1 + PART_IN_A_MILLION * noise)
        return model

    def force(self: MuonAdamW) -> None:
        for factor in self._residual_factors:
            assert factor.grad is not None
            factor.grad.fill_(gradient)

    GPT.build = build_moved  # type: ignore[method-assign]
    MuonAdamW._clear_rounding_noise = force  # type: ignore[method-assign]
    observer = Observer()
    with tempfile.TemporaryDirectory() as folder:
        train(
            train_config(recipe_of(text, steps, warmup)), PreparedData.load(Path(data)),
            CheckpointFolder(Path(folder)), observer, device=torch.device("cpu"),
            dtype=torch.float32, saves=False,
        )  # fmt: skip
    return observer.bpb[steps]


if __name__ == "__main__":
    main()
