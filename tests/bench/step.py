"""Speed and peak memory of training steps on this machine, in a process of its own, without Ray.

    python tests/bench/step.py d12 --steps 1 --rows 4

Tokens are random ids: enough for speed and memory, not for loss.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

import torch

from launcher.config.recipe import load_recipe
from nanochat.memory import keep_freed_memory
from nanochat.model import GPT
from nanochat.optimizer import MuonAdamW, Schedule
from nanochat.sizes import flops_per_token
from nanochat.train import largest_micro_batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, help="per step (default: the recipe's)")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe).recipe
    model = recipe.model
    rows = arguments.rows or recipe.rows_per_step
    micro_batch = largest_micro_batch(rows, model.sequence_length, "cpu")
    keep_freed_memory()
    gpt = GPT.build(model, seed=recipe.seed)
    optimizer = MuonAdamW(
        gpt, tokens_per_step=rows * model.sequence_length, schedule=Schedule(100, 0)
    )
    tokens = rows * model.sequence_length
    seconds = []
    for step in range(arguments.steps):
        began = time.perf_counter()
        for _ in range(rows // micro_batch):
            batch = torch.randint(0, model.vocab_size, (micro_batch, model.sequence_length + 1))
            gpt(batch[:, :-1], batch[:, 1:], denominator=tokens).backward()
        optimizer.step(step)
        seconds.append(time.perf_counter() - began)
    rate = tokens / statistics.median(seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{arguments.recipe}: {rows} rows of {model.sequence_length:,} in micro-batches of "
        f"{micro_batch}: {rate:,.0f} tok/s, {rate * flops_per_token(model) / 1e9:.0f} GFLOP/s, "
        f"peak memory {peak / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
