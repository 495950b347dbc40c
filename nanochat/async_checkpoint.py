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
from nanochat.checkpoint import FREE_SPACE_FIX, CheckpointFolder
from nanochat.errors import CheckpointError
from nanochat.exchange import all_gather_int, all_gather_str
from nanochat.memory import StagingBuffer
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
        every_minutes: float | None, newest_step: int, rank: int, world_size: int,
        device: torch.device,
    ) -> None:  # fmt: skip
        """`folder`: None on a rank that leaves writing to another one. `newest_step`: of the
        checkpoint that the run resumes from, or 0."""
        self._folder = folder
        self._observer = observer
        self._keep = keep
        self._every_minutes = every_minutes
        self._newest_step = newest_step
        self._rank, self._world_size, self._device = rank, world_size, device
        self._failed_step = 0
        self._failure_message = ""  # of the last checkpoint that failed
        self._last = time.monotonic()
        self._thread: ThreadPoolExecutor | None = None
        self._buffers: Future[tuple[StagingBuffer, StagingBuffer]] | None = None
        self._pending: Future[_WriteResult] | None = None
        self._stalled = 0.0  # seconds, for the pending write

    def is_due(self) -> bool:
        """Whether the minutes between checkpoints are over. Not to be followed while a rank
        `is_writing`: on a slow disk they come as fast as it takes them."""
        if self._every_minutes is None:
            return False
        return time.monotonic() - self._last >= 60 * self._every_minutes

    def is_writing(self) -> bool:
        return self._pending is not None and not self._pending.done()

    def take_failed_step(self) -> int:
        """The step of the last checkpoint that failed on the way, or 0; returned once."""
        failed, self._failed_step = self._failed_step, 0
        return failed

    def newest_step(self) -> int:
        """The step of the newest whole checkpoint, or 0, once nothing is being written."""
        self._wait_for_write()
        return self._newest_step

    def reserve_buffers(self, model: Tensors, optimizer: Tensors) -> None:
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
            self._report_blocking_saves(f"a copy of its {need / 1e9:.2f} GB {left}")
            return
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=_lower_priority)
        self._buffers = self._thread.submit(
            lambda: (StagingBuffer(model), StagingBuffer(optimizer))
        )

    def save(
        self, state: dict[str, Any], model: Tensors, optimizer: Tensors, *, started: float,
        blocking: bool, prune: bool,
    ) -> None:  # fmt: skip
        """Write a checkpoint of `state["step"]` while steps go on; one that fails costs nothing
        but itself and is a `fault`. `started`: since when training is stalled for it, by
        time.perf_counter(). `blocking`: it is written when this returns. `prune`: delete older
        ones then.

        Raises CheckpointError if `blocking` and it cannot be written.
        """
        self._last = time.monotonic()
        if self._folder is None:
            self._newest_step = state["step"]
            return
        self._wait_for_write()
        buffers = None if blocking else self._wait_for_buffers()
        if buffers is None or self._thread is None:
            saved = self._write(self._folder, state, model, optimizer, started, prune)
            if blocking and saved.error is not None:
                raise saved.error
            self._report(saved, stalled=saved.seconds)
            return
        model_buffer, optimizer_buffer = buffers
        copies = model_buffer.copy(model), optimizer_buffer.copy(optimizer)
        self._stalled = round(time.perf_counter() - started, 3)
        self._pending = self._thread.submit(
            self._write, self._folder, state, *copies, started, prune
        )

    def poll(self) -> None:
        """Report the pending write, if it has ended. Never blocks."""
        if self._pending is not None and self._pending.done():
            self._wait_for_write()

    def report_fault(self, step: int, error: CheckpointError) -> None:
        """Log a checkpoint that this rank could not write, without its fix: the run goes on."""
        self._failure_message = error.message
        self._observer.event("fault", what="checkpoint", step=step, message=error.message)

    def report_remote_faults(self, failed: Sequence[int]) -> None:
        """Log checkpoints that other ranks could not write; called on all ranks together.

        `failed`: in rank order, the step of the checkpoint, or 0.
        """
        if not any(failed):
            return
        reasons = all_gather_str(self._failure_message, self._world_size)
        for rank, (step, message) in enumerate(zip(failed, reasons, strict=True)):
            if step and rank != self._rank:
                self._observer.event(
                    "fault", what="checkpoint", step=step, rank=rank, message=message
                )

    def finalize(self, step: int, failure: CheckpointError | None, *, at_end: bool) -> None:
        """Agree on the last checkpoint, on all ranks, once each has tried to write that of `step`.

        `failure`: of this rank; only logged, as a `fault`, if another rank has the checkpoint.
        Raises CheckpointError on all ranks if none has it, and `at_end` of the run if rank 0 has
        not, because there it is looked for.
        """
        outcomes = self._all_gather(-1 if failure else int(self._folder is not None))
        failed = self._all_gather(step if failure else self.take_failed_step())
        asked = outcomes[:1] if at_end else outcomes
        if -1 in asked and 1 not in asked:
            raise failure or CheckpointError(
                f"another rank could not write the checkpoint of step {step}", fix=FREE_SPACE_FIX
            )
        if failure:
            self.report_fault(step, failure)
        self.report_remote_faults(failed)

    def _all_gather(self, value: int) -> list[int]:
        return all_gather_int(value, self._world_size, self._device)

    def close(self) -> None:
        """Wait for the pending write and end the thread."""
        self._wait_for_write()
        if self._thread is not None:
            self._thread.shutdown()

    def _wait_for_buffers(self) -> tuple[StagingBuffer, StagingBuffer] | None:
        """The buffers, once their memory is taken; None if there are none."""
        if self._buffers is None:
            return None
        try:
            return self._buffers.result()
        except (OSError, MemoryError) as error:  # what the system has said it has, it has not
            self._buffers = None
            self._report_blocking_saves(f"there is no memory for a copy of it: {error}")
            return None

    def _report_blocking_saves(self, reason: str) -> None:
        message = f"steps stand still while a checkpoint is written: {reason}"
        self._observer.event("memory", words=message)

    def _wait_for_write(self) -> None:
        if self._pending is not None:
            saved, self._pending = self._pending.result(), None
            self._report(saved, stalled=self._stalled)

    def _report(self, saved: _WriteResult, *, stalled: float) -> None:
        """Called on the step loop's own thread: an observer need not be thread-safe."""
        if saved.error is not None:
            self._failed_step = saved.step
            self.report_fault(saved.step, saved.error)
            return
        self._newest_step = saved.step
        self._observer.event(
            "checkpoint", step=saved.step, path=saved.name, seconds=saved.seconds, stalled=stalled
        )

    def _write(
        self, folder: CheckpointFolder, state: dict[str, Any], model: Tensors, optimizer: Tensors,
        started: float, prune: bool,
    ) -> _WriteResult:  # fmt: skip
        error = None
        try:
            folder.save(state, model, optimizer)
            if prune:
                folder.prune(self._keep, state["step"])
        except CheckpointError as reason:
            error = reason
        seconds = round(time.perf_counter() - started, 3)
        return _WriteResult(state["step"], folder.path_of(state["step"]).name, seconds, error)


@dataclass(frozen=True)
class _WriteResult:
    """Outcome of writing one checkpoint."""

    step: int
    name: str
    seconds: float
    error: CheckpointError | None


def _lower_priority() -> None:
    """Let the step loop go first on cores that both want."""
    if sys.platform == "linux":  # elsewhere it would be the whole process
        with contextlib.suppress(OSError):  # a sandbox may not let us: not worth a run
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
