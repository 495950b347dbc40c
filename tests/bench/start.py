"""From Enter to the first step: `launch recipe d4` against a bare TorchTrainer, in turn.

    python tests/bench/start.py [--pairs 3]

The bare one is Ray's own defaults with an empty train function: what any Ray Train program pays
before its first line of training. Data is prepared once, before the first pair.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BARE = """
import sys, time
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

def train_function():
    with open(PATH, "w") as file:
        file.write(str(time.time()))

PATH = sys.argv[1]
ray.init(address="local")
TorchTrainer(
    train_function, scaling_config=ScalingConfig(num_workers=1),
    run_config=RunConfig(storage_path=sys.argv[2]),
).fit()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    pairs = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as folder:
        ours(Path(folder))
        results: list[tuple[float, dict[str, float]]] = []
        for _ in range(pairs):
            results.append((bare(Path(folder)), ours(Path(folder))))
            print(f"bare {results[-1][0]:.1f} s   ours {results[-1][1]}", flush=True)
    bares = statistics.median(bare for bare, _ in results)
    firsts = statistics.median(ours["first step ends"] for _, ours in results)
    print(f"median: bare train function entered {bares:.1f} s, our first step done {firsts:.1f} s")


def bare(folder: Path) -> float:
    """Seconds from the start of the process to the first line of the train function."""
    script, stamp = folder / "bare.py", folder / "stamp"
    script.write_text(BARE)
    began = time.time()
    subprocess.run(
        [sys.executable, str(script), str(stamp), str(folder / "results")],
        check=True, capture_output=True,
    )  # fmt: skip
    return float(stamp.read_text()) - began


def ours(folder: Path) -> dict[str, float]:
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-m", "launcher.cli", "recipe", "d4", "--steps", "2", "--json"],
        env={**os.environ, "LAUNCH_HOME": str(folder)}, check=True, capture_output=True,
    )  # fmt: skip
    run = folder / "runs" / json.loads(done.stdout)["run"]
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    at = {event.get("stage", event["kind"]): event["time"] - began for event in lines}
    metrics = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    return {
        "train function": round(at["workers"], 1),
        "first step ends": round(at["first_step"], 1),
        "of it the step": round(metrics["step_seconds"], 1),
        "evaluation before": round(
            next(e["seconds"] for e in lines if e["kind"] == "evaluate" and e["step"] == 0), 1
        ),
    }


if __name__ == "__main__":
    main()
