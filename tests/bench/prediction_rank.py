"""One rank of a host set for tests/bench/predictions.py: measures, then trains row after row.

    python prediction_rank.py JOB.json RANK

Every line that rank 0 prints is a JSON object. All ranks stay one warm group to the end.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from launcher.config.recipe import Recipe
from launcher.training.all_reduce_speed import measure_link
from launcher.training.host_speed import default_models, measure_host
from launcher.training.train_config import train_config
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset import PreparedData
from nanochat.memory import keep_freed_memory
from nanochat.train import train

CPU = torch.device("cpu")
CALIBRATION_SECONDS = 4.0  # of 1 s those of half a core were up to 10% apart
LONG_STEP_SECONDS = 60.0  # from here one step after the warm-up is enough
TIMED_STEPS = 3


class Watch:
    """Of a row: its steps, and when there are enough."""

    def __init__(self, timed: int) -> None:
        self.records: list[dict[str, Any]] = []
        self.timed = timed

    def step(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def event(self, kind: str, **details: Any) -> None:
        pass

    def stop_requested(self) -> bool:
        """Asked before the record of the step that it may end with."""
        if self.records and self.records[0]["step_seconds"] >= LONG_STEP_SECONDS:
            return True
        return len(self.records) >= self.timed

    def timed_steps(self) -> list[float]:
        return [record["step_seconds"] for record in self.records[1:]]


def calibrate() -> float:
    """Products per second of one fixed shape: how fast this core is just now."""
    one, other = torch.ones(512, 256), torch.ones(256, 8192)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < CALIBRATION_SECONDS:
        one @ other
        count += 1
    return count / (time.perf_counter() - began)


def gathered(value: Any) -> list[Any]:
    if not dist.is_initialized():
        return [value]
    every: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(every, value)
    return every


def main() -> None:
    job, rank = json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])
    threads, world_size = job["threads"], job["world_size"]
    torch.set_num_threads(threads)
    keep_freed_memory()
    if world_size > 1:
        dist.init_process_group(
            "gloo", f"tcp://{job['address']}:{job['port']}", rank=rank, world_size=world_size
        )

    def say(**content: Any) -> None:
        if rank == 0:
            print(json.dumps(content), flush=True)

    if job["measures_hosts"]:
        before = calibrate()
        speed = measure_host(
            default_models(CPU), device=CPU, dtype=torch.float32, folder=Path(job["folder"]),
            max_threads=threads, notify=lambda message: None,
        )  # fmt: skip
        say(what="hosts", speeds=gathered(speed.model_dump(mode="json")))
        say(what="calibration", rates=gathered(statistics.mean((before, calibrate()))))
    if world_size > 1:
        say(what="link", speed=measure_link(dist.group.WORLD, CPU).model_dump(mode="json"))
    for row in job["rows"]:
        recipe = Recipe.model_validate(row["recipe"])
        watch = Watch(row.get("timed", TIMED_STEPS))
        before = calibrate()
        with tempfile.TemporaryDirectory(dir=job["folder"]) as folder:
            train(
                train_config(recipe),
                PreparedData.load(Path(job["data"], str(recipe.sequence_length))),
                CheckpointFolder(Path(folder)), watch, device=CPU, dtype=torch.float32,
                rank=rank, world_size=world_size, weights=row["weights"], saves=False,
            )  # fmt: skip
        rates = gathered(statistics.mean((before, calibrate())))
        losses = [record["loss"] for record in watch.records]
        wire = watch.records[-1]["wire_bytes"]
        say(what="row", name=row["name"], seconds=watch.timed_steps(), rates=rates,
            losses=losses, wire_bytes=wire)  # fmt: skip
    say(what="end")
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
