"""The training of one model, as one function for a bare process, torchrun and a Ray worker alike.

The caller brings the process group, the device and the data, and watches through an `Observer`.
Nothing is read from the environment. Step s trains on rows [s B, (s + 1) B) of the run's row
order, whatever the number of ranks, so the step alone says where the data stands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from nanochat.async_checkpoint import AsyncCheckpointer
from nanochat.batch_split import UNTRAINED_TOKENS, largest_micro_batch, split_rows
from nanochat.checkpoint import Checkpoint, CheckpointFolder
from nanochat.dataset import PreparedData, RowSampler
from nanochat.divergence import LossWatch, all_finite, diverged_error
from nanochat.errors import (
    BatchSplitError,
    CheckpointError,
    DataError,
    IdentityError,
    TrainingError,
)
from nanochat.evaluate import evaluate_bits_per_byte, evaluated_rows
from nanochat.exchange import GradientExchange, all_gather_int, all_reduce_min
from nanochat.memory import keep_freed_memory
from nanochat.model import GPT
from nanochat.observer import Observer
from nanochat.optimizer.muon_adamw import MuonAdamW
from nanochat.optimizer.schedule import Schedule
from nanochat.step_sync import sync_step
from nanochat.stragglers import ComputeClock, StepTimes
from nanochat.text_wait import TextWait
from nanochat.train_config import TrainConfig


@dataclass(frozen=True)
class TrainResult:
    steps: int
    stopped: bool
    train_loss: float | None
    val_bpb: float | None


def train(
    config: TrainConfig,
    data: PreparedData,
    checkpoints: CheckpointFolder,
    observer: Observer,
    *,
    device: torch.device,
    dtype: torch.dtype,
    rank: int = 0,
    world_size: int = 1,
    weights: Sequence[float] | None = None,
    saves: bool = True,
) -> TrainResult:
    """Train from the newest whole checkpoint of any rank, or from the start, to the last step.

    With world_size > 1 the default process group exists already. `data` may still be growing: a
    step waits for the rows that it needs. `weights`: of the rows that each
    rank takes of a step, in rank order (default: equal). They change who computes what, and sums
    by rounding, but not the run. `saves`: this rank writes checkpoints (one rank per host does).

    Raises BatchSplitError if a rank would get no row of a step, IdentityError if the checkpoint is
    another run's, CheckpointError if no rank can write one at a stop, or rank 0 at the end, and
    TrainingError if the loss diverges or is not finite; no checkpoint is written of such a state.
    """
    weights = [1.0] * world_size if weights is None else weights
    shares = split_rows(config.rows_per_step, weights)
    if not all(shares):
        raise BatchSplitError(
            f"{config.rows_per_step} rows per step leave rank {shares.index(range(0))} none"
        )
    if device.type == "cpu":
        keep_freed_memory()
    run = _Run(config, data, checkpoints, observer, device, dtype, rank, weights, saves)
    return run.train()


class _Run:
    """State of one call of `train`."""

    def __init__(
        self, config: TrainConfig, data: PreparedData, checkpoints: CheckpointFolder,
        observer: Observer, device: torch.device, dtype: torch.dtype, rank: int,
        weights: Sequence[float], saves: bool,
    ) -> None:  # fmt: skip
        self.config, self.data, self.observer = config, data, observer
        self.device, self.rank, self.weights = device, rank, weights
        self.shares = split_rows(config.rows_per_step, weights)
        world_size = self.world_size = len(weights)
        self.identity = config.identity(data, dtype)
        self.sampler = RowSampler(config.seed, data.train_rows.block_rows)
        self.token_bytes = torch.from_numpy(data.tokenizer.token_bytes()).to(device)
        self.val_bpb: float | None = None
        self.train_loss: float | None = None

        mine = checkpoints.newest()
        steps = all_gather_int(mine.step if mine else -1, world_size, device)
        self.step = max(*steps, 0)
        self.text_wait = TextWait(data, observer)
        self.resumed_digest: str | None = None  # of rows read before a resume, until compared
        if self.step:
            self.model = GPT.empty(config.model, dtype=dtype, device=device)
        else:
            self.model = GPT.build(config.model, seed=config.seed, dtype=dtype, device=device)
        self.exchange = GradientExchange(
            self.model.parameters(), self.model.lookup_tables(), world_size
        )
        schedule = Schedule(config.steps, config.warmup_steps)
        self.optimizer = MuonAdamW(
            self.model, tokens_per_step=config.tokens_per_step, schedule=schedule
        )
        self.losses = LossWatch(config.model.vocab_size)
        if self.step:
            self._restore(mine, steps)
        self.micro_batch = config.micro_batch or largest_micro_batch(
            len(self.shares[rank]), config.model.sequence_length, device.type
        )
        self.checkpointer = AsyncCheckpointer(
            checkpoints if saves else None, observer, keep=config.checkpoint_keep,
            every_minutes=config.checkpoint_every_minutes, newest_step=self.step, rank=rank,
            world_size=world_size, device=device,
        )  # fmt: skip
        self.save_deferred = False  # a checkpoint was due while the loss was spiking
        self.clock = ComputeClock(device)
        self.times = StepTimes()
        self.previous_seconds: float | None = None  # of the last step, if it counts as usual
        self.skip_timing = False  # of the next step: ranks begin it at unequal times

    def train(self) -> TrainResult:
        try:
            return self._train()
        finally:  # also before an error goes on: what is being written is a checkpoint soon
            self.checkpointer.close()

    def _train(self) -> TrainResult:
        config, first_step = self.config, self.step
        if self.step == 0 and config.evaluate_every_steps:
            self._evaluate(sample_tokens=UNTRAINED_TOKENS)
        while self.step < config.steps:
            started = time.perf_counter()
            try:
                arrived = self._wait_for_rows()
            except DataError:
                if failure := self._save_if_new():
                    self.checkpointer.report_fault(self.step, failure)
                raise
            if not arrived:
                self._save_final()
                self.observer.event("stop", step=self.step)
                return self._result(stopped=True)
            record, stop, save = self._update(started)
            if self.step == first_step + 1 and config.saves_on_the_way:
                # Only now: memory has then been taken for all that steps need.
                model, optimizer = self.model.state_dict(), self.optimizer.state_tensors()
                self.checkpointer.reserve_buffers(model, optimizer)
            if config.evaluate_every_steps and (
                self.step % config.evaluate_every_steps == 0 or self.step == config.steps
            ):
                record["val_bpb"] = self._evaluate()
            self.observer.step(record)
            self.checkpointer.poll()
            last = stop or self.step == config.steps
            self.save_deferred |= save
            if last:
                self._save_final()
            elif self.save_deferred and not self.losses.spiking:
                self._save(blocking=False)
            if stop:
                self.observer.event("stop", step=self.step)
                return self._result(stopped=self.step < config.steps)
        return self._result(stopped=False)

    def _wait_for_rows(self) -> bool:
        """Have the rows of the next step at hand; False: a stop was asked for while they came."""
        first = self.step * self.config.rows_per_step
        stop = first + self.config.rows_per_step
        if not self.data.manifest.complete and self.data.manifest.train.rows < stop:
            arrived = self.text_wait.wait_for_rows(stop, step=self.step + 1)
            self.sampler = RowSampler(self.config.seed, self.data.train_rows.block_rows)
            if not arrived:
                return False
        if self.resumed_digest is not None:
            self._require_same_rows(self.resumed_digest)
            self.resumed_digest = None
        blocks = self.data.manifest.train.blocks
        self.data.ensure_blocks([blocks[number] for number in self.sampler.blocks(first, stop)])
        return True

    def _require_same_rows(self, digest: str) -> None:
        """Raises IdentityError where the rows of the steps before are not those of `digest`, on all
        ranks. Empty: this rank does not know."""
        changed = bool(digest) and digest != self._rows_digest()
        if any(all_gather_int(int(changed), self.world_size, self.device)):
            raise IdentityError(
                f"the rows up to step {self.step} are not those that were trained on",
                fix="bring the old text back, or start a new run",
            )

    def _rows_digest(self) -> str:
        """What has been read so far."""
        return self.data.manifest.train.digest(self.step * self.config.rows_per_step)

    def _update(self, started: float) -> tuple[dict[str, Any], bool, bool]:
        """One step: its metrics, whether to stop after it and whether to save it. `started`: before
        its rows were waited for, which is part of what it takes."""
        config = self.config
        sent, compute_started = self.exchange.wire_bytes, time.perf_counter()
        computed = self.clock.read()
        self.clock.start()
        loss = torch.zeros((), dtype=torch.float32, device=self.device)
        batches = list(self._micro_batches())
        for number, rows in enumerate(batches, start=1):
            batch = torch.from_numpy(self.data.train_rows.batch(rows)).to(self.device)
            if number == len(batches) and self.world_size > 1:
                self.exchange.open([self._touched_ids(share) for share in self.shares])
            part = self.model(batch[:, :-1], batch[:, 1:], denominator=config.tokens_per_step)
            part.backward()
            loss += part.detach()
        self.clock.stop()
        self.exchange.finish()
        self.clock.start()
        rate = self.optimizer.step(self.step)
        self.clock.stop()

        leads = self.rank == 0
        synced = sync_step(
            self.exchange, loss, rank=self.rank, stop=leads and self.observer.stop_requested(),
            due=leads and self.checkpointer.is_due(), writing=self.checkpointer.is_writing(),
            computed=computed,  # in the step before: a GPU is not asked before it is done
            failed=self.checkpointer.take_failed_step(),
        )  # fmt: skip
        mean_loss = synced.loss
        self._report_if_slow(synced.compute)
        self.checkpointer.report_remote_faults(synced.failed)
        self.step += 1
        self.train_loss = mean_loss
        ended = time.perf_counter()
        self.previous_seconds = None if self.skip_timing else ended - compute_started
        self.skip_timing = False
        seconds = ended - started
        if not math.isfinite(mean_loss):
            raise self._diverged(f"the loss of step {self.step} is {mean_loss}")
        self.losses.add(mean_loss)
        if self.losses.diverged:
            raise self._diverged(f"the loss has exploded: {self.losses.message(self.step)}")
        record = {
            "step": self.step,
            "tokens": self.step * config.tokens_per_step,
            "loss": mean_loss,
            "lr": rate,
            "step_seconds": round(seconds, 6),
            "tokens_per_second": round(config.tokens_per_step / seconds, 3),
            "wire_bytes": self.exchange.wire_bytes - sent,
        }
        every = config.checkpoint_every_steps
        return record, synced.stop, synced.save or bool(every and self.step % every == 0)

    def _micro_batches(self) -> Iterator[np.ndarray[Any, Any]]:
        """Row numbers of this rank's share of the step, `micro_batch` at a time."""
        share = self.shares[self.rank]
        for start in share[:: self.micro_batch]:
            yield self._rows(start, min(start + self.micro_batch, share.stop))

    def _rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """Stored rows of the step's rows [start, stop)."""
        first = self.step * self.config.rows_per_step
        return self.sampler.rows(first + start, first + stop)

    def _touched_ids(self, share: range) -> Tensor:
        """(n,) ids that a rank with this share looks up in this step, each once, in order."""
        batch = self.data.train_rows.batch(self._rows(share.start, share.stop))
        touched = np.zeros(self.config.model.padded_vocab_size, dtype=np.bool_)
        touched[batch[:, :-1]] = True
        return torch.from_numpy(np.flatnonzero(touched)).to(self.device)

    def _evaluate(self, sample_tokens: int | None = None) -> float:
        started = time.perf_counter()
        rows = evaluated_rows(
            len(self.data.validation_rows),
            self.config.evaluate_tokens,
            self.config.model.sequence_length,
        )
        self.data.ensure_blocks(self.data.manifest.validation.blocks_of(rows))
        self.val_bpb = evaluate_bits_per_byte(
            self.model, self.data.validation_rows, self.token_bytes,
            max_tokens=self.config.evaluate_tokens, micro_batch=self.micro_batch, rank=self.rank,
            weights=self.weights, exchange=self.exchange, sample_tokens=sample_tokens,
        )  # fmt: skip
        seconds = round(time.perf_counter() - started, 3)
        self.observer.event("evaluate", step=self.step, val_bpb=self.val_bpb, seconds=seconds)
        return self.val_bpb

    def _report_if_slow(self, compute: Sequence[float]) -> None:
        """Log an event if the last step was slow, now that each rank's compute time is known."""
        if self.previous_seconds is None:
            return
        slow = self.times.add(self.previous_seconds, compute)
        if slow is not None:
            self.observer.event("slow", step=self.step, **slow)

    def _save_final(self) -> None:
        """Save the last checkpoint of this call; all ranks come here together."""
        failure = self._save_if_new()
        self.checkpointer.finalize(self.step, failure, at_end=self.step == self.config.steps)

    def _save_if_new(self) -> CheckpointError | None:
        """Save this step unless it is saved; return what prevented it. A rank may call it alone."""
        try:
            if self.step > self.checkpointer.newest_step():
                self._save(blocking=True)
        except CheckpointError as error:
            return error
        return None

    def _save(self, *, blocking: bool) -> None:
        """Write a checkpoint, `blocking`: before this returns. Raises TrainingError on all ranks if
        the weights are not finite."""
        started = time.perf_counter()
        if not all_finite(self._all_tensors()):
            raise self._diverged(f"the weights after step {self.step} are no numbers")
        self.save_deferred = False
        self.skip_timing = True  # one host may write at once and for long, another beside its steps
        state = {
            "step": self.step,
            "train_loss": self.train_loss,
            "val_bpb": self.val_bpb,
            "best_loss": self.losses.best,
            "identity": self.identity,
            "rows_sha256": self._rows_digest(),
        }
        self.checkpointer.save(
            state, self.model.state_dict(), self.optimizer.state_tensors(), started=started,
            blocking=blocking, prune=not self.losses.spiking,
        )  # fmt: skip

    def _diverged(self, what: str) -> TrainingError:
        """No checkpoint is written of this state."""
        dtype, tokens = self.identity["dtype"], self.config.tokens_per_step
        newest = self.checkpointer.newest_step()
        return diverged_error(what, newest=newest, dtype=dtype, tokens_per_step=tokens)

    def _restore(self, mine: Checkpoint | None, steps: list[int]) -> None:
        """Take over the newest state: from this rank's own disk, else from a rank that has it.

        steps: of each rank's newest checkpoint.
        """
        started = time.perf_counter()
        newest = max(steps)
        own = mine if mine is not None and mine.step == newest else None
        difference = self.config.difference(own.state["identity"], self.identity) if own else ""
        if any(all_gather_int(int(bool(difference)), self.world_size, self.device)):
            raise IdentityError(
                f"the checkpoint of step {newest} is another run's:\n"
                f"{difference or '  another rank has the difference'}",
                fix="bring back what it was made with, or start a new run",
            )
        if own is not None:
            self.model.load_state_dict(own.model_tensors())
            self.optimizer.load_state_tensors(own.optimizer_tensors())
            self.val_bpb = own.state["val_bpb"]
            self.train_loss = own.state["train_loss"]
        if min(steps) < newest:
            for tensor in self._all_tensors():
                dist.broadcast(tensor, src=steps.index(newest))
        self.resumed_digest = own.state.get("rows_sha256", "") if own is not None else ""
        best = own.state.get("best_loss", math.inf) if own is not None else math.inf
        best = all_reduce_min(best, self.world_size, self.device)
        self.losses = LossWatch(self.config.model.vocab_size, best)
        seconds = round(time.perf_counter() - started, 3)
        self.observer.event("resume", step=newest, seconds=seconds)

    def _all_tensors(self) -> Iterator[Tensor]:
        yield from self.model.state_dict().values()
        yield from self.optimizer.state_tensors().values()

    def _result(self, *, stopped: bool) -> TrainResult:
        return TrainResult(self.step, stopped, self.train_loss, self.val_bpb)
