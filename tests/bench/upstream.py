"""Ours against upstream nanochat on the same text, steps and machine: tokens per second, val_bpb.

    python tests/bench/upstream.py --checkout ~/nanochat --text '~/text/*.parquet' [--steps 200]

`--checkout`: a clone of karpathy/nanochat; `--python`: an interpreter that has its packages (torch,
wandb, rustbpe, tiktoken, pyarrow, filelock, requests, jinja2, pyyaml). Upstream is run as its CPU
users run it, with torch.compile switched off (`--compile` leaves it on). The order is ours,
upstream, ours again, so that a machine whose speed drifts shows it.
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

EVALUATION_TOKENS = 65_536


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--text", required=True, help="parquet files; the last one validates")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(row("", "tok/s median", "tok/s best 10%", "val_bpb by step"))
        print(ours(arguments, Path(folder) / "first"), flush=True)
        print(upstream(arguments, Path(folder) / "upstream"), flush=True)
        print(ours(arguments, Path(folder) / "second"), flush=True)


def ours(arguments: argparse.Namespace, home: Path) -> str:
    text = str(Path(arguments.text).expanduser().absolute())
    subprocess.run(
        [sys.executable, "-m", "launcher.cli", "recipe", "d4", "--name", "bench",
         "--steps", str(arguments.steps), "--data", f"files:{text}"],
        env={**os.environ, "LAUNCH_HOME": str(home)}, check=True, capture_output=True,
    )  # fmt: skip
    run = home / "runs" / "bench"
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    bpb = {e["step"]: e["val_bpb"] for e in events if e["kind"] == "evaluate"}
    return figures("ours", [record["tokens_per_second"] for record in metrics], bpb)


def upstream(arguments: argparse.Namespace, home: Path) -> str:
    shards = home / "base_data_climbmix"
    shards.mkdir(parents=True)
    for path in sorted(glob.glob(str(Path(arguments.text).expanduser()))):
        shutil.copy(path, shards)
    environment = {
        **os.environ,
        "NANOCHAT_BASE_DIR": str(home),
        "NANOCHAT_DTYPE": "float32",
        "WANDB_MODE": "disabled",
        "TORCHDYNAMO_DISABLE": "0" if arguments.compile else "1",
    }

    def module(name: str, *options: str) -> str:
        return subprocess.run(
            [arguments.python, "-m", name, *options], cwd=arguments.checkout, env=environment,
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip

    module("scripts.tok_train")
    log = module(
        "scripts.base_train", "--device-type=cpu", "--depth=4", "--head-dim=64",
        "--max-seq-len=512", "--device-batch-size=4", "--total-batch-size=2048",
        "--window-pattern=L", f"--num-iterations={arguments.steps}", "--eval-every=100",
        f"--eval-tokens={EVALUATION_TOKENS}", "--core-metric-every=-1", "--sample-every=-1",
    )  # fmt: skip
    rates = [2048 / (float(ms) / 1000) for ms in re.findall(r"dt: ([\d.]+)ms", log)]
    bpb = {int(s): float(b) for s, b in re.findall(r"Step (\d+) \| Validation bpb: ([\d.]+)", log)}
    return figures("upstream" + ", compiled" * arguments.compile, rates, bpb)


def figures(name: str, rates: list[float], bpb: dict[int, float]) -> str:
    rates = sorted(rates[2:])
    words = "  ".join(f"{step}: {value:.3f}" for step, value in bpb.items())
    return row(
        name, f"{statistics.median(rates):,.0f}", f"{rates[int(0.9 * len(rates))]:,.0f}", words
    )


def row(*cells: str) -> str:
    return f"{cells[0]:<20}{cells[1]:>14}{cells[2]:>16}   {cells[3]}"


if __name__ == "__main__":
    main()
