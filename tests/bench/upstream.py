"""Ours against upstream nanochat on the same text, steps and machine: tokens per second, val_bpb.

    python tests/bench/upstream.py --checkout ~/nanochat --text '~/text/*.parquet' [--recipe d4]
        [--steps 200] [--seeds 42 43 44]

`--checkout`: a clone of karpathy/nanochat; `--python`: an interpreter that has its packages (torch,
wandb, rustbpe, tiktoken, pyarrow, filelock, requests, jinja2, pyyaml). Upstream is run as its CPU
users run it, with torch.compile switched off (`--compile` leaves it on), and with the warm-up of
40 steps that it has for any length. Each seed is a pair, ours and then upstream: of the first
weights for both, of the order of rows for ours (upstream's order is the text's).
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from launcher.config.recipe import Recipe, load_recipe

EVALUATION_TOKENS = 65_536
TOKENS_PER_STEP = 2048
# Upstream has no option for its seed: every call of manual_seed gets ours.
WITH_SEED = """
import runpy, sys, torch
seed, seeds = int(sys.argv.pop(1)), torch.manual_seed
torch.manual_seed = lambda _: seeds(seed)
runpy.run_module("scripts.base_train", run_name="__main__", alter_sys=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--text", required=True, help="parquet files; the last one validates")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--recipe", default="d4")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    arguments.text = str(Path(arguments.text).expanduser().absolute())
    with tempfile.TemporaryDirectory() as folder:
        print(row("", "tok/s median", "tok/s best 10%", "val_bpb by step"))
        train_upstreams_tokenizer(arguments, Path(folder, "upstream"))
        for seed in arguments.seeds:
            print(ours(arguments, Path(folder, "ours"), seed), flush=True)
            print(upstream(arguments, Path(folder, "upstream"), seed), flush=True)


def ours(arguments: argparse.Namespace, home: Path, seed: int) -> str:
    settings = {
        "seed": seed, "tokens_per_step": TOKENS_PER_STEP, "evaluation.every_steps": 100,
        "evaluation.tokens": EVALUATION_TOKENS,
    }  # fmt: skip
    name = f"seed-{seed}"
    subprocess.run(
        [sys.executable, "-m", "launcher.cli", "recipe", arguments.recipe, "--name", name,
         "--steps", str(arguments.steps), "--data", f"files:{arguments.text}",
         *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))],
        env={**os.environ, "LAUNCH_HOME": str(home)}, check=True, capture_output=True,
    )  # fmt: skip
    run = home / "runs" / name
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    shutil.rmtree(run / "checkpoints")
    bpb = {e["step"]: e["val_bpb"] for e in events if e["kind"] == "evaluate"}
    return figures(f"ours, {name}", [record["tokens_per_second"] for record in metrics], bpb)


def train_upstreams_tokenizer(arguments: argparse.Namespace, home: Path) -> None:
    shards = home / "base_data_climbmix"
    shards.mkdir(parents=True)
    for path in sorted(glob.glob(arguments.text)):
        shutil.copy(path, shards)
    run_upstream(arguments, home, "-m", "scripts.tok_train")


def upstream(arguments: argparse.Namespace, home: Path, seed: int) -> str:
    recipe: Recipe = load_recipe(arguments.recipe).recipe
    length = recipe.sequence_length
    log = run_upstream(
        arguments, home, "-c", WITH_SEED, str(seed), "--device-type=cpu",
        f"--depth={recipe.depth}", f"--head-dim={recipe.head_dim}", f"--max-seq-len={length}",
        f"--device-batch-size={TOKENS_PER_STEP // length}", f"--total-batch-size={TOKENS_PER_STEP}",
        f"--window-pattern={recipe.window_pattern}", f"--num-iterations={arguments.steps}",
        "--eval-every=100", f"--eval-tokens={EVALUATION_TOKENS}", "--core-metric-every=-1",
        "--sample-every=-1",
    )  # fmt: skip
    rates = [
        TOKENS_PER_STEP / (float(ms) / 1000) for ms in re.findall(r"dt: ([\d.]+)ms", log)
    ]  # fmt: skip
    bpb = {int(s): float(b) for s, b in re.findall(r"Step (\d+) \| Validation bpb: ([\d.]+)", log)}
    name = "upstream" + ", compiled" * arguments.compile
    return figures(f"{name}, seed-{seed}", rates, bpb)


def run_upstream(arguments: argparse.Namespace, home: Path, *words: str) -> str:
    environment = {
        **os.environ,
        "NANOCHAT_BASE_DIR": str(home),
        "NANOCHAT_DTYPE": "float32",
        "WANDB_MODE": "disabled",
        "TORCHDYNAMO_DISABLE": "0" if arguments.compile else "1",
    }
    return subprocess.run(
        [arguments.python, *words], cwd=arguments.checkout, env=environment,
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip


def figures(name: str, rates: list[float], bpb: dict[int, float]) -> str:
    rates = sorted(rates[2:])
    words = "  ".join(f"{step}: {value:.3f}" for step, value in bpb.items())
    return row(
        name, f"{statistics.median(rates):,.0f}", f"{rates[int(0.9 * len(rates))]:,.0f}", words
    )


def row(*cells: str) -> str:
    return f"{cells[0]:<30}{cells[1]:>14}{cells[2]:>16}   {cells[3]}"


if __name__ == "__main__":
    main()
