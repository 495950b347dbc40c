"""Text -> rows, ours against upstream's: MB of text per second of one core's time.

    python tests/bench/packing.py --checkout ~/nanochat --text '~/text/*.parquet' [--length 2048]

`--checkout`: a clone of karpathy/nanochat; `--python`: an interpreter that has its packages. Both
read the parquet files (the last one validates), encode with one thread and pack by best fit, one
after the other, `--pairs` times. Upstream's packs into tensors, ours into files, hashes included.
Processor seconds are counted, so that other work on the machine does not matter much.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import parse_source

UPSTREAM = """
import json, sys, time
from nanochat.dataloader import tokenizing_distributed_data_loader_with_state_bos_bestfit as loader
from nanochat.tokenizer import get_tokenizer
length, tokenizer = int(sys.argv[1]), get_tokenizer()
began, rows = time.process_time(), 0
for _, _, state in loader(tokenizer, 4, length, "train", tokenizer_threads=1, device="cpu"):
    if state["epoch"] > 1: break
    rows += 4
print(json.dumps([time.process_time() - began, rows]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    arguments.text = str(Path(arguments.text).expanduser().absolute())
    *training, _ = sorted(glob.glob(arguments.text))
    size = sum(
        len(text.encode()) for path in training for text in pq.read_table(path)["text"].to_pylist()
    )
    rates: dict[str, list[float]] = {"ours": [], "upstream": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours(arguments, folder)  # trains the tokenizer
        base = upstreams_base(arguments, folder)
        for _ in range(arguments.pairs):
            for side, run in (("ours", ours), ("upstream", upstream)):
                seconds, rows = run(arguments, folder if side == "ours" else base)
                rates[side].append(size / 1e6 / seconds)
                print(f"{side:<10}{rates[side][-1]:6.2f} MB/s of a core, {rows:,} rows", flush=True)
    medians = {side: statistics.median(each) for side, each in rates.items()}
    print(f"medians: {medians['ours']:.2f} and {medians['upstream']:.2f} MB/s of a core, "
          f"ratio {medians['ours'] / medians['upstream']:.2f}")  # fmt: skip


def ours(arguments: argparse.Namespace, folder: Path) -> tuple[float, int]:
    shutil.rmtree(folder / "cache" / "prepared", ignore_errors=True)
    began = time.process_time()
    data = prepare(
        parse_source(f"files:{arguments.text}", Path.cwd()),
        cache=folder / "cache", sequence_length=arguments.length, vocab_size=32_768,
        validation=None, threads=1, on_progress=lambda stage, done, total: None,
    )  # fmt: skip
    return time.process_time() - began, len(data.train_rows)


def upstreams_base(arguments: argparse.Namespace, folder: Path) -> Path:
    shards = folder / "upstream" / "base_data_climbmix"
    shards.mkdir(parents=True)
    for path in sorted(glob.glob(arguments.text)):
        shutil.copy(path, shards)
    run_upstream(arguments, shards.parent, "-m", "scripts.tok_train")
    return shards.parent


def upstream(arguments: argparse.Namespace, base: Path) -> tuple[float, int]:
    output = run_upstream(arguments, base, "-c", UPSTREAM, str(arguments.length))
    seconds, rows = json.loads(output.splitlines()[-1])
    return seconds, rows


def run_upstream(arguments: argparse.Namespace, base: Path, *words: str) -> str:
    return subprocess.run(
        [arguments.python, *words], cwd=arguments.checkout, check=True, text=True,
        stdout=subprocess.PIPE, env={**os.environ, "NANOCHAT_BASE_DIR": str(base)},
    ).stdout  # fmt: skip


if __name__ == "__main__":
    main()
