"""What a run's folder says about the run: its state, how far it is, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from launcher.runs.folder import RunFolder
from launcher.runs.records import Record, latest_attempts, read_records

# waiting: for another run that has its hosts; preparing: text; unknown: of a cluster's run, at work
# when it was seen last; gone: no host has it any more.
Status = Literal[
    "running", "waiting", "preparing", "stopping", "finished", "stopped", "failed", "imported",
    "interrupted", "unknown", "gone",
]  # fmt: skip
AT_WORK = ("running", "waiting", "preparing", "stopping")


@dataclass(frozen=True)
class RunState:
    """One line of `launch runs`. `interrupted`: its driver died without a word. `restarts`: but for
    those to change the group, which were planned. `resizes`: how often it went on on other nodes.
    `recovery`: seconds by stage from the last fault to the end of the next step, and how many steps
    were lost."""

    run: str
    cluster: str
    recipe: str
    status: Status
    step: int
    steps: int
    created: float
    train_loss: float | None
    val_bpb: float | None
    tokens_per_second: float | None
    restarts: int
    resizes: int
    recovery: Record | None

    @classmethod
    def of(cls, folder: RunFolder, alive: bool | None = None) -> RunState:
        """`alive`: whether its driver is, where it is not this machine's to know."""
        metrics = latest_attempts(read_records(folder.metrics))
        state = cls.from_metrics(folder, metrics, status_of(folder, alive))
        summary = folder.summary()
        if summary is None or state.status in AT_WORK:
            return state
        keys = ("train_loss", "val_bpb", "tokens_per_second")  # the last: of the whole run
        return replace(state, step=summary["steps"], **{key: summary[key] for key in keys})

    @classmethod
    def from_metrics(cls, folder: RunFolder, metrics: list[Record], status: Status) -> RunState:
        """`metrics`: the folder's, each step once."""
        spec = folder.spec()
        last = metrics[-1] if metrics else None
        return cls(
            run=folder.name,
            cluster=spec["cluster"],
            recipe=spec["recipe"],
            status=status,
            step=last["step"] if last else 0,
            steps=spec["steps"],
            created=spec["created"],
            train_loss=last["loss"] if last else None,
            val_bpb=_last_val_bpb(metrics),
            tokens_per_second=_tokens_per_second(metrics),
            restarts=_restarts(folder, metrics),
            resizes=sum(event["kind"] == "resize" for event in read_records(folder.events)),
            recovery=_last_recovery(folder),
        )


def status_of(folder: RunFolder, alive: bool | None = None) -> Status:
    """`alive`: whether its driver is. None: to be found out, which only the run's machine can."""
    here = folder.spec().get("cluster") == "local"
    if folder.is_locked() if alive is None and here else alive:
        if folder.stop_request.exists():
            return "stopping"
        events = [e for e in read_records(folder.events) if e.get("what") != "text"]  # in its way
        if events and events[-1]["kind"] == "wait":
            return "waiting"
        return "preparing" if _prepares(events) else "running"
    summary = folder.summary()
    if summary is None:
        return "interrupted" if here or alive is not None else "unknown"
    status: Status = summary["status"]
    return status


def _prepares(events: list[Record]) -> bool:
    """Whether its text is being brought or prepared: Ray starts beside that."""
    beside = ("ray", "imports")
    last = next((e for e in reversed(events) if e.get("stage") not in beside), None)
    return last is not None and last["kind"] == "progress"


def summarize(folder: RunFolder, status: Status) -> dict[str, Any]:
    """The content of summary.json. `seconds` is the time spent in steps that count."""
    metrics = latest_attempts(read_records(folder.metrics))
    state = RunState.from_metrics(folder, metrics, status)
    seconds = sum(record["step_seconds"] for record in metrics)
    tokens = metrics[-1]["tokens"] if metrics else 0
    saved = sorted(path.name for path in folder.checkpoints.glob("step-*"))
    return {
        "run": state.run,
        "recipe": state.recipe,
        "cluster": folder.spec()["cluster"],
        "steps": state.step,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "tokens_per_second": round(tokens / seconds, 3) if seconds else None,
        "train_loss": state.train_loss,
        "val_bpb": state.val_bpb,
        "checkpoint": str(folder.checkpoints / saved[-1]) if saved else None,
        "restarts": state.restarts,
        "status": status,
    }


def _last_val_bpb(metrics: list[Record]) -> float | None:
    for record in reversed(metrics):
        if "val_bpb" in record:
            value: float = record["val_bpb"]
            return value
    return None


def _restarts(folder: RunFolder, metrics: list[Record]) -> int:
    """Attempts that have made a step, but for the first and those that a change was planned for."""
    attempts = max((record["attempt"] for record in metrics), default=0)
    planned = {event["attempt"] for event in read_records(folder.events) if event.get("planned")}
    return attempts - sum(attempt <= attempts for attempt in planned)


def _last_recovery(folder: RunFolder) -> Record | None:
    for event in reversed(read_records(folder.events)):
        of_step = event["kind"] == "restart" and event["stage"] == "step"
        if of_step and not event.get("planned"):
            return {key: event[key] for key in ("seconds", "stages", "step", "replays")}
    return None


def _tokens_per_second(metrics: list[Record]) -> float | None:
    """Median of the last 20 steps: one slow step does not show."""
    rates = sorted(record["tokens_per_second"] for record in metrics[-20:])
    return rates[len(rates) // 2] if rates else None
