"""Finds a group that hangs: a frozen rank, a collective that never ends.

A thread of the controller's process on the head watches what rank 0 writes. Past the limit it
collects the stacks of every rank into the run's folder, says whom the others wait for, and kills
the ranks: the controller then starts a group as after any fault.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train.v2._internal.execution.worker_group import Worker, WorkerGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from launcher.runs.events import (
    CheckpointEvent,
    EvaluateEvent,
    Event,
    FaultEvent,
    ResizeEvent,
    StartEvent,
    TextEvent,
)
from launcher.runs.folder import RunFolder
from launcher.runs.follow import RunTail
from launcher.runs.metric import Metric
from launcher.runs.state import count_attempts
from launcher.training.callback import GroupCallback
from launcher.training.process_group import rank_order
from launcher.training.recovery_controller import RecoveryController
from launcher.training.stacks import dump_and_kill, is_frozen, is_in_collective
from nanochat.batch_split import UNTRAINED_TOKENS
from nanochat.sizes import state_bytes

POLL_SECONDS = 1.0
STACKS_TIMEOUT_SECONDS = 20.0  # for a node's stacks: a process that is not ready imports for 5 s
# A step past eight medians hangs: one of five is slow and is said to be. Beside it a floor, above
# what a lost host takes to be noticed (`HEALTH_CHECKS`) and what TCP needs after a cable was out
# for 5 s (it tries again after 6.4 s at the latest): those are no hangs and cost no restart.
LIMIT_FACTOR = 8.0
FLOOR_SECONDS = {"lan": 20.0, "wifi": 90.0}
# Before any step is known: a first step of d24 on a slow CPU, text and rows on their way.
FIRST_STEP_LIMIT_SECONDS = 1800.0
# From the start of a group to its first step, beside eight medians: processes, imports, group; and
# the state, from a slow disk or over a slow cable from another host.
GROUP_START_SECONDS = 60.0
STATE_BYTES_PER_SECOND = 10e6
FIRST_CHECKPOINT_SECONDS = 60.0  # for a checkpoint before any is known
# A host may just have become that slow: each time that nothing was frozen, the limits double, until
# RECENT_STEPS were made since: then the median knows how slow it is.
MAX_DOUBLINGS = 4
RECENT_STEPS = 20  # of which the median is taken


@dataclass(frozen=True)
class StepPace:
    """What steps of a run take, the median; evaluations, the longest; and checkpoints, the longest:
    `stall`, for how long steps stood still beside the write, and `checkpoint`, all of it. None: not
    known yet."""

    step: float | None
    evaluation: float | None
    stall: float | None
    checkpoint: float | None

    @classmethod
    def of(cls, metrics: Sequence[Metric], events: Sequence[Event], tokens: int) -> StepPace:
        """`tokens`: that an evaluation reads, but for the one before the first step."""
        steps = [metric.step_seconds for metric in metrics[-RECENT_STEPS:]]
        less = tokens / min(tokens, UNTRAINED_TOKENS)
        evaluations = [
            event.seconds * (1 if event.step else less)
            for event in events
            if isinstance(event, EvaluateEvent) and event.seconds is not None
        ]
        saves = [
            (event.seconds, event.stalled)
            for event in events
            if isinstance(event, CheckpointEvent) and event.seconds is not None
        ]
        stalls = [seconds if stalled is None else stalled for seconds, stalled in saves]
        return cls(
            statistics.median(steps) if steps else None,
            max(evaluations, default=None),
            max(stalls, default=None),
            max((seconds for seconds, _ in saves), default=None),
        )

    def limit(
        self,
        *,
        floor: float,
        state_bytes: float,
        before_first_step: bool,
        may_evaluate: bool,
        may_checkpoint: bool,
    ) -> float:
        """Return the seconds after the last sign of rank 0 in which the next one has to come.

        `before_first_step`: this group has made no step yet. `may_evaluate`: rank 0 may evaluate
        before the next sign. `may_checkpoint`: it may write a whole checkpoint before the next
        sign, as after the last step.
        """
        if self.step is None or (may_evaluate and self.evaluation is None):
            return FIRST_STEP_LIMIT_SECONDS
        seconds = LIMIT_FACTOR * (self.step + (self.evaluation or 0.0 if may_evaluate else 0.0))
        if before_first_step:
            return floor + GROUP_START_SECONDS + state_bytes / STATE_BYTES_PER_SECOND + seconds
        save = self.checkpoint if may_checkpoint else self.stall
        saving = FIRST_CHECKPOINT_SECONDS if save is None else LIMIT_FACTOR * save
        return max(floor, seconds, saving)  # a checkpoint is a sign of its own


class Watchdog(GroupCallback):
    """`nodes`: names in rank order. `profile`: of the network."""

    def __init__(
        self, run: Path, nodes: Sequence[str], recovery: RecoveryController, *, profile: str
    ) -> None:
        self._folder = RunFolder(run)
        self._nodes = nodes
        self._recovery = recovery
        self._floor = FLOOR_SECONDS[profile]
        self._ended: threading.Event | None = None  # of the group that is watched

    def before_init_train_context(self, workers: list[Worker]) -> dict[str, list[Any]]:
        names = [worker.metadata.node for worker in workers]
        ranks = [workers[i] for i in rank_order(names, self._nodes)]
        self._ended = threading.Event()
        watch = _Watch(self._folder, self._floor, ranks, self._recovery, self._ended)
        threading.Thread(target=watch.run, daemon=True).start()
        return {}

    def before_worker_group_shutdown(self, worker_group: WorkerGroup) -> None:
        self._stop_watching()

    def start_failed(self, error: Exception) -> None:
        self._stop_watching()

    def _stop_watching(self) -> None:
        if self._ended is not None:
            self._ended.set()


class _Watch:
    """Of one group. `ranks`: its workers, by rank."""

    def __init__(
        self,
        folder: RunFolder,
        floor: float,
        ranks: Sequence[Worker],
        recovery: RecoveryController,
        ended: threading.Event,
    ) -> None:
        self._folder = folder
        self._floor = floor
        self._ranks = ranks
        self._recovery = recovery
        self._ended = ended
        recipe = folder.spec().recipe
        self._evaluation = recipe.evaluation
        self._steps = recipe.steps_total
        self._state_bytes = state_bytes(recipe.model)

    def run(self) -> None:
        tail = RunTail(self._folder)
        before = tail.read()
        metrics, events = since_last_start(before.metrics, before.events)
        before_first_step, last_sign_at = True, time.monotonic()
        while not self._ended.wait(POLL_SECONDS):
            update = tail.read()
            metrics = [*metrics, *update.metrics][-RECENT_STEPS:]
            events += update.events
            now = time.monotonic()
            before_first_step = before_first_step and not update.metrics
            if update.metrics or update.events or _waits_for_text(events):
                last_sign_at = now
            limit = self._limit(metrics, events, before_first_step)
            if now - last_sign_at > limit:
                self._end_group(now - last_sign_at, limit)
                return

    def _limit(
        self, metrics: Sequence[Metric], events: Sequence[Event], before_first_step: bool
    ) -> float:
        pace = StepPace.of(metrics, events, self._evaluation.tokens)
        step = metrics[-1].step + 1 if metrics else 1
        may_evaluate = (
            before_first_step or step % self._evaluation.every_steps == 0 or step >= self._steps
        )
        requests = self._folder.stop_request, self._folder.regroup_request
        limit = pace.limit(
            floor=self._floor,
            state_bytes=self._state_bytes,
            before_first_step=before_first_step,
            may_evaluate=may_evaluate,
            may_checkpoint=step >= self._steps or any(path.exists() for path in requests),
        )
        return limit * 2 ** count_doublings(metrics, events)

    def _end_group(self, seconds: float, limit: float) -> None:
        """Collect stacks, kill the ranks, write a fault event."""
        if self._ended.is_set():  # it has just ended by itself
            return
        attempt = self._recovery.attempt
        self._recovery.begin_hang(seconds)
        answers = self._dump_and_kill()
        stacks = {rank: text for found in answers.values() for rank, text in found.items()}
        folder = self._folder.path / "stacks"
        folder.mkdir(exist_ok=True)
        for rank in range(len(self._ranks)):
            file = folder / f"attempt-{attempt}-rank-{rank}.txt"
            file.write_text(stacks.get(rank, "its node did not answer\n"))
        suspect, reason = self._suspect(stacks)
        self._recovery.write_hang(
            attempt,
            suspect,
            None if suspect is None else self._ranks[suspect].metadata.node,
            f"no sign of training for {seconds:.0f} s, {limit:.0f} are the limit: {reason}; what "
            f"all ranks did is in {folder}",
            frozen=any(is_frozen(text) for text in stacks.values()),
        )
        for worker in self._ranks:
            if worker.metadata.node_id not in answers:
                ray.kill(worker.actor)

    def _dump_and_kill(self) -> dict[str, dict[int, str]]:
        """Stacks by rank, by the id of each node that answers."""
        pids: dict[str, dict[int, int]] = {}
        for rank, worker in enumerate(self._ranks):
            pids.setdefault(worker.metadata.node_id, {})[rank] = worker.metadata.pid
        # A process that has run a task is never taken for an actor, and a host would keep it
        # instead of a spare: it ends with its one call.
        task = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(dump_and_kill)
        nodes = {}
        for node, ranks in pids.items():
            strategy = NodeAffinitySchedulingStrategy(node, soft=False)
            nodes[task.options(scheduling_strategy=strategy).remote(ranks)] = node
        done, _ = ray.wait(list(nodes), num_returns=len(nodes), timeout=STACKS_TIMEOUT_SECONDS)
        answers = {}
        for reference in done:
            with contextlib.suppress(RayError):  # it is gone
                answers[nodes[reference]] = ray.get(reference)
        return answers

    def _suspect(self, stacks: Mapping[int, str]) -> tuple[int | None, str]:
        """Return the rank that the others wait for, and the reason to think so."""
        for rank in range(len(self._ranks)):
            if rank not in stacks:
                return rank, f"{self._name(rank)} does not answer"
        for rank, text in stacks.items():
            if is_frozen(text):
                return rank, f"{self._name(rank)} does not run"
        busy = [rank for rank, text in stacks.items() if not is_in_collective(text)]
        if len(busy) == 1 and len(stacks) > 1:
            return busy[0], f"the others wait for {self._name(busy[0])}"
        return None, "no rank stands out"

    def _name(self, rank: int) -> str:
        node = self._ranks[rank].metadata.node
        return f"rank {rank} on {node}" if node else f"rank {rank}"


def count_doublings(metrics: Sequence[Metric], events: Sequence[Event]) -> int:
    """How often limits are doubled. `metrics`: the last RECENT_STEPS, or as many as there are."""
    since = (metrics[0].time or 0.0) if len(metrics) == RECENT_STEPS else 0.0
    hangs = sum(
        isinstance(event, FaultEvent) and event.frozen is False and event.time > since
        for event in events
    )
    return min(MAX_DOUBLINGS, hangs)


def since_last_start(
    metrics: Sequence[Metric], events: Sequence[Event]
) -> tuple[list[Metric], list[Event]]:
    """Return the records since the run was last started, resumed or moved to other nodes. Before
    that, a step may have been ten times as quick."""
    since = 0
    for index, event in enumerate(events):
        is_start = isinstance(event, StartEvent) and event.stage == "hardware"
        if is_start or isinstance(event, ResizeEvent):
            since = index
    attempts = count_attempts(events[:since])
    return [m for m in metrics if m.attempt >= attempts], list(events[since:])


def _waits_for_text(events: Sequence[Event]) -> bool:
    last = events[-1] if events else None
    return isinstance(last, TextEvent) and last.seconds is None and last.message is None
