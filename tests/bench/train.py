"""The train function in a process of its own, without Ray: speed, peak memory, losses.

    python tests/bench/train.py d12 --text '~/text/*.parquet' --steps 100 [--device cuda]

`--text`: as `--data files:` of the command (default: the embedded text). `--set` as there,
but for the text. The model is trained for real; its checkpoint goes into a folder that is removed.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from launcher.config.recipe import load_recipe
from launcher.training.device import choose_device
from launcher.training.local_session import LocalSession
from launcher.training.train_config import train_config
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import parse_source
from nanochat.sizes import flops_per_token
from nanochat.train import train

UNTIMED_STEPS = 3  # left out of the medians: first touches of memory, kernels being chosen


class Observer:
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.bpb: dict[int, float] = {}

    def step(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def event(self, kind: str, **details: Any) -> None:
        if kind == "evaluate":
            self.bpb[details["step"]] = details["val_bpb"]

    def stop_requested(self) -> bool:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--text")
    parser.add_argument("--cache", type=Path, help="where prepared text is kept")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    options = [("--set", pair) for pair in arguments.overrides]
    options += [("--steps", str(arguments.steps)), ("--data", text_source(arguments.text))]
    recipe = load_recipe(arguments.recipe, options).recipe
    hardware = choose_device(recipe, LocalSession("", workers=1))
    device = torch.device(arguments.device)
    dtype = getattr(torch, hardware.dtype) if device.type == hardware.device else torch.float32
    observer = Observer()
    with tempfile.TemporaryDirectory() as folder:
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
            train_config(recipe), data, CheckpointFolder(Path(folder, "checkpoints")), observer,
            device=device, dtype=dtype,
        )  # fmt: skip
    report(arguments.recipe, recipe.model, recipe.tokens_per_step, observer, device, dtype)


def text_source(pattern: str | None) -> str:
    return f"files:{pattern}" if pattern else "embedded"


def report(
    name: str, model: Any, tokens_per_step: int, observer: Observer, device: torch.device,
    dtype: torch.dtype,
) -> None:  # fmt: skip
    timed = observer.records[UNTIMED_STEPS:] or observer.records
    rate = statistics.median(record["tokens_per_second"] for record in timed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
        name += f" on {torch.cuda.get_device_name()}"
    losses = [record["loss"] for record in observer.records]
    bpb = ", ".join(f"{value:.3f} at {step}" for step, value in observer.bpb.items())
    print(
        f"{name}, {str(dtype).removeprefix('torch.')}, {len(losses)} steps of "
        f"{tokens_per_step:,} tokens: {rate:,.0f} tok/s (median of {len(timed)}), "
        f"{rate * flops_per_token(model) / 1e12:.3g} TFLOP/s, peak memory {peak / 1e9:.2f} GB, "
        f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, val_bpb {bpb}"
    )


if __name__ == "__main__":
    main()
