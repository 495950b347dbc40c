"""What a run's folder says about the run: its state, how far it is, how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from launcher.runs.events import (
    CheckpointEvent,
    Event,
    FaultEvent,
    ProgressEvent,
    ResizeEvent,
    RestartEvent,
    StartEvent,
    WaitEvent,
    read_events,
)
from launcher.runs.folder import RunFolder
from launcher.runs.metric import Metric, latest_attempts, read_metrics
from launcher.runs.summary import Summary

# waiting: for another run that has its hosts; preparing: text; unknown: of a cluster's run, active
# when it was seen last; gone: no host has it any more.
Status = Literal[
    "running", "waiting", "preparing", "stopping", "finished", "stopped", "failed", "imported",
    "interrupted", "unknown", "gone",
]  # fmt: skip
ACTIVE_STATUSES = ("running", "waiting", "preparing", "stopping")
RECENT_STEPS = 20  # of which the speed is the median: one slow step does not show


@dataclass(frozen=True)
class RunState:
    """One line of `launch runs`."""

    run: str
    cluster: str
    recipe: str
    status: Status
    """`interrupted`: its driver died without a summary."""
    step: int
    steps: int
    created: float
    train_loss: float | None
    val_bpb: float | None
    tokens_per_second: float | None
    restarts: int
    """Except those that changed the group: they were planned."""
    resizes: int
    """How often it continued on other nodes."""
    recovery: dict[str, Any] | None
    """Seconds by stage from the last fault to the end of the next step, and how many steps were
    lost."""

    @classmethod
    def of(cls, folder: RunFolder, alive: bool | None = None) -> RunState:
        """`alive`: whether its driver is. None: found out, which only the run's machine can.

        Raises InputError if run.json lacks what every run has.
        """
        metrics = latest_attempts(read_metrics(folder.metrics))
        state = cls.from_metrics(folder, metrics, status_of(folder, alive))
        summary = folder.summary()
        if summary is None or state.status in ACTIVE_STATUSES:
            return state
        return replace(
            state,
            step=summary.steps,
            train_loss=summary.train_loss,
            val_bpb=summary.val_bpb,
            tokens_per_second=summary.tokens_per_second,  # of the whole run
        )

    @classmethod
    def from_metrics(cls, folder: RunFolder, metrics: Sequence[Metric], status: Status) -> RunState:
        """`metrics`: the folder's, each step once."""
        spec = folder.spec()
        events = read_events(folder.events)
        last = metrics[-1] if metrics else None
        evaluated = [metric.val_bpb for metric in metrics if metric.val_bpb is not None]
        return cls(
            run=folder.name,
            cluster=spec.cluster,
            recipe=spec.recipe_name,
            status=status,
            step=last.step if last else 0,
            steps=spec.steps,
            created=spec.created,
            train_loss=last.loss if last else None,
            val_bpb=evaluated[-1] if evaluated else None,
            tokens_per_second=_tokens_per_second(metrics),
            restarts=_count_restarts(metrics, events),
            resizes=sum(isinstance(event, ResizeEvent) for event in events),
            recovery=_last_recovery(events),
        )


def status_of(folder: RunFolder, alive: bool | None = None) -> Status:
    """`alive`: whether its driver is. None: found out, which only the run's machine can."""
    spec = folder.find_spec()
    is_local = spec is not None and spec.cluster == "local"
    if folder.is_locked() if alive is None and is_local else alive:
        if folder.stop_request.exists():
            return "stopping"
        events = read_events(folder.events)
        # A download that has trouble says so beside whatever else happens.
        events = [e for e in events if not (isinstance(e, FaultEvent) and e.what == "text")]
        if events and isinstance(events[-1], WaitEvent):
            return "waiting"
        return "preparing" if _is_preparing(events) else "running"
    summary = folder.summary()
    if summary is None:
        return "interrupted" if is_local or alive is not None else "unknown"
    status: Status = summary.status  # type: ignore[assignment]  # of one of our own drivers
    return status


def summarize(folder: RunFolder, status: Status) -> Summary:
    """Return the content of summary.json."""
    metrics = latest_attempts(read_metrics(folder.metrics))
    state = RunState.from_metrics(folder, metrics, status)
    seconds = sum(metric.step_seconds for metric in metrics)
    tokens = metrics[-1].tokens if metrics else 0
    saved = sorted(path.name for path in folder.checkpoints.glob("step-*"))
    return Summary(
        run=state.run,
        recipe=state.recipe,
        cluster=state.cluster,
        steps=state.step,
        tokens=tokens,
        seconds=round(seconds, 3),
        tokens_per_second=round(tokens / seconds, 3) if seconds else None,
        train_loss=state.train_loss,
        val_bpb=state.val_bpb,
        checkpoint=str(folder.checkpoints / saved[-1]) if saved else None,
        restarts=state.restarts,
        status=status,
    )


def count_attempts(events: Iterable[Event]) -> int:
    """How often the run's ranks have begun to train."""
    return sum(is_attempt(event) for event in events)


def is_attempt(event: Event) -> bool:
    """Whether the ranks have just begun to train."""
    return isinstance(event, StartEvent | RestartEvent) and event.stage == "workers"


def last_saved_step(folder: RunFolder) -> int:
    """The step from which the run would resume; 0 if nothing has been saved."""
    saved = [e.step for e in read_events(folder.events) if isinstance(e, CheckpointEvent)]
    return saved[-1] if saved else 0


def last_members(folder: RunFolder, names: Iterable[str]) -> tuple[str, ...]:
    """The nodes of the group that trained last. `names`: all nodes of the run."""
    resizes = [event for event in read_events(folder.events) if isinstance(event, ResizeEvent)]
    return resizes[-1].nodes if resizes else tuple(names)


def _is_preparing(events: Sequence[Event]) -> bool:
    """Whether its text is being fetched or prepared: Ray starts meanwhile."""
    stages_of_ray = ("ray", "imports")
    for event in reversed(events):
        if not (isinstance(event, StartEvent) and event.stage in stages_of_ray):
            return isinstance(event, ProgressEvent)
    return False


def _count_restarts(metrics: Iterable[Metric], events: Iterable[Event]) -> int:
    """Attempts that have made a step, except the first and those that changed the group."""
    attempts = max((metric.attempt for metric in metrics), default=0)
    planned = {e.attempt for e in events if isinstance(e, RestartEvent) and e.planned}
    return attempts - sum(attempt is not None and attempt <= attempts for attempt in planned)


def _last_recovery(events: Sequence[Event]) -> dict[str, Any] | None:
    for event in reversed(events):
        if isinstance(event, RestartEvent) and event.stage == "step" and not event.planned:
            return {
                "seconds": event.seconds,
                "stages": event.stages,
                "step": event.step,
                "replays": event.replays,
            }
    return None


def _tokens_per_second(metrics: Sequence[Metric]) -> float | None:
    rates = sorted(metric.tokens_per_second for metric in metrics[-RECENT_STEPS:])
    return rates[len(rates) // 2] if rates else None
