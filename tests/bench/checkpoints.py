"""What checkpoints cost a run: tokens per second with one a minute, and without, in the same run.

    python tests/bench/checkpoints.py d8 --block 5 --pairs 2 --text '~/text/*.parquet' \\
        --set tokens_per_step=4096

Blocks of steps without a checkpoint and blocks that begin with one take turns in one process;
`--block`: steps that take a minute (at least 3: the first block is not timed). `--text`, `--cache`
and `--set` as those of train.py. The checkpoints go into a temporary folder (`--into`: where).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from train import text_source

from launcher.config.recipe import load_recipe
from launcher.raycluster.local import LocalSession
from launcher.training.hardware import choose_hardware
from launcher.training.train_config import train_config
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import parse_source
from nanochat.train import train


class Observer:
    def __init__(self) -> None:
        self.ends = [time.perf_counter()]  # of each step, before its checkpoint
        self.saved: dict[int, dict[str, Any]] = {}

    def step(self, record: dict[str, Any]) -> None:
        self.ends.append(time.perf_counter())

    def event(self, kind: str, **details: Any) -> None:
        if kind == "checkpoint":
            self.saved[details["step"]] = details
        elif kind in ("fault", "memory"):
            raise SystemExit(f"{kind}: {details}")

    def stop_requested(self) -> bool:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--block", type=int, default=5, help="steps that take a minute")
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--text")
    parser.add_argument("--cache", type=Path, help="where prepared text is kept")
    parser.add_argument("--into", type=Path, help="the folder whose disk is written to")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    options = [("--set", pair) for pair in arguments.overrides]
    options += [("--data", text_source(arguments.text))]
    recipe = load_recipe(arguments.recipe, options).recipe
    hardware = choose_hardware(recipe, LocalSession("", workers=1))
    observer, block, pairs = Observer(), arguments.block, arguments.pairs
    # A block to settle in, then pairs of one without and one that begins with a checkpoint.
    config = replace(
        train_config(recipe),
        steps=block * (1 + 2 * pairs),
        evaluate_every_steps=None,
        checkpoint_every_minutes=None,
        checkpoint_every_steps=2 * block,
    )
    with tempfile.TemporaryDirectory(dir=arguments.into) as folder:
        data = prepare(
            parse_source(recipe.data.source, Path.cwd()),
            cache=arguments.cache or Path(folder),
            sequence_length=recipe.sequence_length,
            vocab_size=recipe.vocab_size,
            validation=None,
            threads=hardware.threads[""],
            on_progress=lambda stage, done, total: None,
        )
        train(
            config, data, CheckpointFolder(Path(folder, "checkpoints")), observer,
            device=torch.device("cpu"), dtype=getattr(torch, hardware.dtype),
        )  # fmt: skip
    report(arguments.recipe, config.tokens_per_step, block, pairs, observer)


def report(name: str, tokens_per_step: int, block: int, pairs: int, observer: Observer) -> None:
    """A line per pair, then the medians."""
    rates: dict[str, list[float]] = {"without": [], "with": []}
    stalls = []
    for pair in range(pairs):
        start = block * (1 + 2 * pair)
        middle, end = start + block, start + 2 * block
        without = observer.ends[middle] - observer.ends[start]
        beside = observer.ends[end] - observer.ends[middle]
        saved = observer.saved[middle]
        rates["without"].append(block * tokens_per_step / without)
        rates["with"].append(block * tokens_per_step / beside)
        stalls.append(saved["stalled"] / beside)
        print(
            f"{block} steps without {without:.2f} s; with a checkpoint {beside:.2f} s, ratio "
            f"{without / beside:.3f}; it was under way for {saved['seconds']:.2f} s and the steps "
            f"stood still for {saved['stalled']:.2f} s"
        )
    medians = {kind: statistics.median(each) for kind, each in rates.items()}
    per_minute = 60 * medians["with"] / (block * tokens_per_step)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{name}, {tokens_per_step:,} tokens a step, {pairs} pairs of blocks of {block} steps: "
        f"{medians['without']:,.1f} tok/s without, {medians['with']:,.1f} with {per_minute:.2f} "
        f"checkpoints a minute, ratio of the medians {medians['with'] / medians['without']:.3f}, "
        f"stalled {statistics.median(stalls):.2%} of the time, peak memory {peak / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
