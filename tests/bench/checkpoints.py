"""What checkpoints cost a run: tokens per second with one a minute, and without, in the same run.

    python tests/bench/checkpoints.py d8 --block 5 --pairs 2 --text '~/text/*.parquet' \\
        --set tokens_per_step=4096

Blocks of steps without a checkpoint and blocks that begin with one take turns in one process;
`--block`: steps that take a minute (at least 3: the first block is not timed). `--text`, `--cache`
and `--set` as those of train.py. The checkpoints go into a temporary folder (`--into`: where).
Fails below 0.97 of the speed without checkpoints, and where steps stand still for above 1 %.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from train import text_source

from launcher.config.recipe import load_recipe
from launcher.training.device import choose_device
from launcher.training.local_session import LocalSession
from launcher.training.train_config import train_config
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import parse_source
from nanochat.train import train

LEAST_RATIO = 0.97  # of the medians of tokens per second
MOST_STALLED = 0.01  # of the time


class Observer:
    """Prints a line for each pair of blocks."""

    def __init__(self, block: int, tokens_per_step: int) -> None:
        self.block = block
        self.tokens = block * tokens_per_step  # of a block
        self.ends = [time.perf_counter()]  # of each step, before its checkpoint
        self.saved: dict[int, dict[str, Any]] = {}
        self.without: list[float] = []  # tokens per second of each block
        self.beside: list[float] = []
        self.stalled: list[float] = []  # of the time of a block with a checkpoint

    def step(self, record: dict[str, Any]) -> None:
        self.ends.append(time.perf_counter())
        blocks, rest = divmod(record["step"], self.block)
        if rest == 0 and blocks % 2 == 1 and blocks > 1:
            self._pair(record["step"])

    def _pair(self, end: int) -> None:
        """The last block began with a checkpoint, the one before was without."""
        middle = end - self.block
        saved = self.saved.get(middle)
        if saved is None:  # and it would slow the next block, which is to be without
            raise SystemExit(
                f"the checkpoint of step {middle} was not written within its block of {self.block} "
                "steps: give a larger --block"
            )
        without = self.ends[middle] - self.ends[middle - self.block]
        beside = self.ends[end] - self.ends[middle]
        self.without.append(self.tokens / without)
        self.beside.append(self.tokens / beside)
        self.stalled.append(saved["stalled"] / beside)
        print(
            f"{self.block} steps without {without:.2f} s; with a checkpoint {beside:.2f} s, ratio "
            f"{without / beside:.3f}; it was under way for {saved['seconds']:.2f} s and the steps "
            f"stood still for {saved['stalled']:.2f} s",
            flush=True,
        )

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
    hardware = choose_device(recipe, LocalSession("", workers=1))
    block, pairs = arguments.block, arguments.pairs
    observer = Observer(block, recipe.tokens_per_step)
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
    sys.exit(not report(arguments.recipe, config.tokens_per_step, observer))


def report(name: str, tokens_per_step: int, observer: Observer) -> bool:
    """False: a limit was missed."""
    without, beside = statistics.median(observer.without), statistics.median(observer.beside)
    ratio, stalled = beside / without, statistics.median(observer.stalled)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{name}, {tokens_per_step:,} tokens a step, {len(observer.without)} pairs of blocks of "
        f"{observer.block} steps: {without:,.1f} tok/s without, {beside:,.1f} with "
        f"{60 * beside / observer.tokens:.2f} checkpoints a minute, ratio of the medians "
        f"{ratio:.3f}, stalled {stalled:.2%} of the time, peak memory {peak / 1e9:.2f} GB"
    )
    return ratio >= LEAST_RATIO and stalled <= MOST_STALLED


if __name__ == "__main__":
    main()
