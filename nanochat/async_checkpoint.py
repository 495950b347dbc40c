"""Checkpoints that are written beside the training: the step loop stands still for a copy only."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nanochat.available_memory import available_bytes
from nanochat.checkpoint import MAKE_ROOM, CheckpointFolder
from nanochat.errors import CheckpointError
from nanochat.exchange import all_gather_int, all_gather_str
from nanochat.memory import KeptCopy
from nanochat.observer import Observer

# Of the writing thread. At 10 it gets a tenth of a core that is busy otherwise: the 0.4 s of d4
# take 4 s there, the 1.2 s of d8 take 12. The lowest priority (SCHED_IDLE) gives it 0.3%: the next
# checkpoint would come before this one is written.
NICENESS = 10
SPARE_BYTES = 256 * 2**20  # what the machine must have left beside the copy

Tensors = Mapping[str, Tensor]


class AsyncCheckpointer:
    """Writes the checkpoints of a run, one at a time, and prunes its folder.

    One that comes while the one before is being written waits for it: each that was asked for is
    written, and there is one copy of the state at a time.

    An event `checkpoint` says of each: `seconds` from the end of its step until it was on the disk,
    and for how many of them the step loop stood still, `stalled`: for the copy, or for all of it,
    and for the one before where that was not written yet.
    """

    def __init__(
        self, folder: CheckpointFolder | None, observer: Observer, *, keep: int,
        every_minutes: float | None, newest: int, rank: int, world_size: int, device: torch.device,
    ) -> None:  # fmt: skip
        """`folder`: None on a rank that leaves writing to another one. `newest`: the step of the
        checkpoint that the run goes on from, or 0."""
        self._folder = folder
        self._observer = observer
        self._keep = keep
        self._every_minutes = every_minutes
        self._newest = newest
        self._rank, self._world_size, self._device = rank, world_size, device
        self._failed = 0
        self._why = ""  # of the last checkpoint that failed
        self._last = time.monotonic()
        self._thread: ThreadPoolExecutor | None = None
        self._room: Future[tuple[KeptCopy, KeptCopy]] | None = None
        self._under_way: Future[_Saved] | None = None
        self._stalled = 0.0  # seconds, for the one that is under way

    def is_due(self) -> bool:
        """Whether the minutes between checkpoints are over. Not to be followed while a rank
        `is_writing`: on a slow disk they come as fast as it takes them."""
        if self._every_minutes is None:
            return False
        return time.monotonic() - self._last >= 60 * self._every_minutes

    def is_writing(self) -> bool:
        return self._under_way is not None and not self._under_way.done()

    def take_failed(self) -> int:
        """The step of the last checkpoint that failed on the way, or 0; told once."""
        failed, self._failed = self._failed, 0
        return failed

    def newest(self) -> int:
        """The step of the newest whole checkpoint, or 0, once nothing is being written."""
        self._settle()
        return self._newest

    def make_room(self, model: Tensors, optimizer: Tensors) -> None:
        """Take memory for copies of these, while steps go on. Where there is too little it is an
        event, and `save` returns when all is written."""
        if self._folder is None:
            return
        need = sum(tensor.nbytes for tensor in (*model.values(), *optimizer.values()))
        available = available_bytes()
        if available is None or available < need + SPARE_BYTES:
            left = (
                "may not fit into memory: this system does not say how much is left"
                if available is None
                else f"does not fit into the {available / 1e9:.2f} GB of memory that are left"
            )
            self._stand_still(f"a copy of its {need / 1e9:.2f} GB {left}")
            return
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=_stand_back)
        self._room = self._thread.submit(lambda: (KeptCopy(model), KeptCopy(optimizer)))

    def save(
        self, state: dict[str, Any], model: Tensors, optimizer: Tensors, *, began: float,
        must: bool, prune: bool,
    ) -> None:  # fmt: skip
        """Write a checkpoint of `state["step"]` while steps go on; one that fails costs nothing
        but itself and is a `fault`. `began`: since when the steps stand still for it, by
        time.perf_counter(). `must`: it is written when this returns. `prune`: older ones go then.

        Raises CheckpointError where one that must be there cannot be written.
        """
        self._last = time.monotonic()
        if self._folder is None:
            self._newest = state["step"]
            return
        self._settle()
        room = None if must else self._room_there()
        if room is None or self._thread is None:
            saved = self._write(self._folder, state, model, optimizer, began, prune)
            if must and saved.error is not None:
                raise saved.error
            self._tell(saved, stalled=saved.seconds)
            return
        kept_model, kept_optimizer = room
        copies = kept_model.take(model), kept_optimizer.take(optimizer)
        self._stalled = round(time.perf_counter() - began, 3)
        self._under_way = self._thread.submit(
            self._write, self._folder, state, *copies, began, prune
        )

    def look(self) -> None:
        """Tell of the one that has been under way."""
        if self._under_way is not None and self._under_way.done():
            self._settle()

    def tell_fault(self, step: int, error: CheckpointError) -> None:
        """Without its advice: the run goes on."""
        self._why = error.message
        self._observer.event("fault", what="checkpoint", step=step, message=error.message)

    def tell_failed(self, failed: Sequence[int]) -> None:
        """On all ranks, of checkpoints that others could not write: of each rank the step, or 0."""
        if not any(failed):
            return
        reasons = all_gather_str(self._why, self._world_size)
        for rank, (step, message) in enumerate(zip(failed, reasons, strict=True)):
            if step and rank != self._rank:
                self._observer.event(
                    "fault", what="checkpoint", step=step, rank=rank, message=message
                )

    def part(self, step: int, failure: CheckpointError | None, *, at_end: bool) -> None:
        """On all ranks, once each has tried to write the checkpoint of `step`, before they part.

        `failure`: of this rank. Where another rank has it, that costs nothing, and is a `fault`.
        Raises CheckpointError on all ranks where none has it, and `at_end` of the run where rank 0
        has not: there it is looked for.
        """
        outcomes = self._agree(-1 if failure else int(self._folder is not None))
        failed = self._agree(step if failure else self.take_failed())
        asked = outcomes[:1] if at_end else outcomes
        if -1 in asked and 1 not in asked:
            raise failure or CheckpointError(
                f"another rank could not write the checkpoint of step {step}", fix=MAKE_ROOM
            )
        if failure:
            self.tell_fault(step, failure)
        self.tell_failed(failed)

    def _agree(self, value: int) -> list[int]:
        return all_gather_int(value, self._world_size, self._device)

    def close(self) -> None:
        """When the one that is under way is written."""
        self._settle()
        if self._thread is not None:
            self._thread.shutdown()

    def _room_there(self) -> tuple[KeptCopy, KeptCopy] | None:
        """Once it is taken; None where there is none."""
        if self._room is None:
            return None
        try:
            return self._room.result()
        except (OSError, MemoryError) as error:  # what the system has said it has, it has not
            self._room = None
            self._stand_still(f"there is no memory for a copy of it: {error}")
            return None

    def _stand_still(self, why: str) -> None:
        words = f"steps stand still while a checkpoint is written: {why}"
        self._observer.event("memory", words=words)

    def _settle(self) -> None:
        if self._under_way is not None:
            saved, self._under_way = self._under_way.result(), None
            self._tell(saved, stalled=self._stalled)

    def _tell(self, saved: _Saved, *, stalled: float) -> None:
        """By the step loop's own thread: an observer need not be ready for others."""
        if saved.error is not None:
            self._failed = saved.step
            self.tell_fault(saved.step, saved.error)
            return
        self._newest = saved.step
        self._observer.event(
            "checkpoint", step=saved.step, path=saved.name, seconds=saved.seconds, stalled=stalled
        )

    def _write(
        self, folder: CheckpointFolder, state: dict[str, Any], model: Tensors, optimizer: Tensors,
        began: float, prune: bool,
    ) -> _Saved:  # fmt: skip
        error = None
        try:
            folder.save(state, model, optimizer)
            if prune:
                folder.prune(self._keep, state["step"])
        except CheckpointError as reason:
            error = reason
        seconds = round(time.perf_counter() - began, 3)
        return _Saved(state["step"], folder.place(state["step"]).name, seconds, error)


@dataclass(frozen=True)
class _Saved:
    """What came of a checkpoint."""

    step: int
    name: str
    seconds: float
    error: CheckpointError | None


def _stand_back() -> None:
    """Let the step loop go first on cores that both want."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        with contextlib.suppress(OSError):  # a sandbox may not let us: not worth a run
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
