"""Peak memory as `launch plan` predicts it, and as a run on this machine takes it.

    python tests/bench/peaks.py [--recipes d4 d8 d12] [--tokens 4096] [--measure]
        [--set micro_batch=2]

The peak is what the kernel counted of the worker, VmHWM: resident, with what it shares with others.
Every recipe with a copy for checkpoints on the way, and without, `--tokens` a step. `--measure`:
after `launch measure`, else of a machine that nobody has measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil

STEPS = 4
COPIES = {"with a copy": "checkpoint.every_steps=2", "without": "checkpoint.every_steps=null"}
LOOK_SECONDS = 0.05


class Watch(threading.Thread):
    """The most that a worker of LAUNCH_HOME `home` had resident."""

    def __init__(self, home: str) -> None:
        super().__init__(daemon=True)
        self.home, self.peak_bytes, self.over = home, 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(LOOK_SECONDS):
            for process in psutil.process_iter(["cmdline"]):
                title = " ".join(process.info["cmdline"] or ())
                if title.startswith("ray::") and "TrainWorker" in title:
                    self.peak_bytes = max(self.peak_bytes, peak_of(process, self.home))


def peak_of(process: psutil.Process, home: str) -> int:
    """0 where it is another's, or gone."""
    try:
        if process.environ().get("LAUNCH_HOME") != home:
            return 0
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except (psutil.Error, OSError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def launch(home: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "launcher.cli", *arguments], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "LAUNCH_HOME": home},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"launch {' '.join(arguments)} ended with {done.returncode}")
    return done.stdout


def compared(home: str, recipe: str, overrides: list[str]) -> dict[str, Any]:
    settings = ["--steps", str(STEPS), "--set", "checkpoint.every_minutes=null"]
    for override in overrides:
        settings += ["--set", override]
    plan = json.loads(launch(home, "plan", recipe, *settings, "--json"))["hosts"][0]
    watch = Watch(home)
    watch.start()
    launch(home, "recipe", recipe, "--data", "embedded", *settings, "--json")
    watch.over.set()
    watch.join()
    return {"predicted": plan["peak_bytes"], "measured": watch.peak_bytes, "parts": plan["memory"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipes", nargs="+", default=["d4", "d8", "d12"])
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    tokens = [f"{key}={arguments.tokens}" for key in ("tokens_per_step", "evaluation.tokens")]
    with tempfile.TemporaryDirectory() as home:
        if arguments.measure:
            launch(home, "measure", "--json")
        print("| | predicted GB | measured GB | error |\n|---|---|---|---|", flush=True)
        for recipe in arguments.recipes:
            for words, copy in COPIES.items():
                found = compared(home, recipe, [*tokens, *arguments.overrides, copy])
                error = found["predicted"] / found["measured"] - 1
                print(f"| {recipe} {words} | {found['predicted'] / 1e9:.2f} | "
                      f"{found['measured'] / 1e9:.2f} | {error:+.0%} |", flush=True)  # fmt: skip
                print(json.dumps(found["parts"]), file=sys.stderr)


if __name__ == "__main__":
    main()
