"""What every Ray Train worker runs: nanochat's train function on this run's folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import ray.train
import torch

from launcher.config.recipe import Recipe
from launcher.runs.folder import RunFolder, write_json
from launcher.runs.records import RecordWriter, read_records
from launcher.training.train_config import train_config
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset import PreparedData
from nanochat.errors import NanochatError
from nanochat.exchange import agree
from nanochat.train import train

# Attempts in a row without a new step: one more would end where they did.
FUTILE_ATTEMPTS = 3


def train_loop(arguments: dict[str, Any]) -> None:
    """Called by Ray on every worker, and again on all of them after any one has died.

    arguments: `folder` of the run, `submitted` (time), `attempts_before` (of earlier drivers).
    """
    waited = time.time() - arguments["submitted"]
    folder = RunFolder(Path(arguments["folder"]))
    if folder.failure() is not None:
        return
    spec = folder.spec()
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = torch.device(spec["device"])
    if device.type == "cuda":
        device = torch.device("cuda", context.get_local_rank())
        torch.cuda.set_device(device)
    torch.set_num_threads(spec["threads"])
    try:
        observer = RunObserver(folder, leads=rank == 0)
        futile = observer.began(waited, arguments["attempts_before"])
        if any(agree(int(futile), world_size, device)):
            return
        train(
            train_config(Recipe.model_validate(spec["settings"])),
            PreparedData.load(Path(spec["data"]["folder"])),
            CheckpointFolder(folder.checkpoints),
            observer,
            device=device,
            dtype=getattr(torch, spec["dtype"]),
            rank=rank,
            world_size=world_size,
            saves=context.get_local_rank() == 0,
        )
    except (NanochatError, OSError) as error:
        # Another attempt would end the same way, and Ray would make it: say why and return.
        message, fix = str(error), None
        if isinstance(error, NanochatError):
            message, fix = error.message, error.fix
        try:
            write_json(folder.failure_file, {"message": message, "fix": fix})
        except OSError:
            print(message, flush=True)  # a full disk: nothing of the run can be written
            os._exit(1)


class RunObserver:
    """Writes a run's metrics and events, on rank 0 only, and watches for the request to stop."""

    def __init__(self, folder: RunFolder, *, leads: bool) -> None:
        self._folder = folder
        self._leads = leads
        self._attempt = 0
        self._first_step_since: float | None = None
        if leads:
            self._metrics = RecordWriter(folder.metrics)
            self._events = RecordWriter(folder.events)

    def began(self, waited: float, attempts_before: int) -> bool:
        """Count the attempt. True where attempts keep ending without a new step."""
        if not self._leads:
            return False
        self._attempt = count_attempts(self._folder)
        kind = "restart" if self._attempt else "start"
        if self._attempt > attempts_before:  # Ray's doing, some time after the start
            waited = time.time() - self._folder.metrics.stat().st_mtime
        self._events.event(kind, stage="workers", attempt=self._attempt, seconds=round(waited, 3))
        useful, reached = attempts_before - 1, 0
        for record in read_records(self._folder.metrics):
            if record["step"] > reached:
                useful, reached = max(useful, record["attempt"]), record["step"]
        futile = self._attempt - useful > FUTILE_ATTEMPTS
        if futile:
            message = f"training died {FUTILE_ATTEMPTS} times in a row without a new step"
            write_json(
                self._folder.failure_file, {"message": message, "fix": f"see {self._folder.log}"}
            )
        if self._attempt == attempts_before:
            self._first_step_since = time.time()
        return futile

    def step(self, record: dict[str, Any]) -> None:
        if not self._leads:
            return
        self._metrics.write({**record, "attempt": self._attempt})
        if self._first_step_since is not None:
            seconds = round(time.time() - self._first_step_since, 3)
            self._first_step_since = None
            since_enter = round(time.time() - self._folder.spec()["entered"], 3)
            self._events.event(
                "start", stage="first_step", seconds=seconds, seconds_since_enter=since_enter
            )

    def event(self, kind: str, **details: Any) -> None:
        if self._leads:
            self._events.event(kind, **details)

    def stop_requested(self) -> bool:
        return self._folder.stop_request.exists()


def count_attempts(folder: RunFolder) -> int:
    """How often workers have begun to train in this run."""
    return sum(event.get("stage") == "workers" for event in read_records(folder.events))
