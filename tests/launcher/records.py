"""Complete records of runs, for tests that need some: each with all that every run has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launcher.runs.events import Event, EventLog, parse_event
from launcher.runs.folder import RunFolder
from launcher.runs.json_lines import JsonLinesWriter
from launcher.runs.metric import Metric
from launcher.runs.node import RunNode
from launcher.runs.spec import RunSpec
from launcher.runs.summary import Summary


def make_spec(**fields: Any) -> RunSpec:
    """What run.json says, by names of fields. Settings that no recipe has if none are given."""
    least = {"recipe_name": "d4", "cluster": "local", "created": 1.0, "steps": 9, "settings": {}}
    return RunSpec(**{**least, **fields})


def make_node(name: str, **fields: Any) -> RunNode:
    return RunNode(**{"name": name, "cpus": 1, **fields})


def make_metric(step: int, **fields: Any) -> Metric:
    """A step of one second at 100 tokens."""
    tokens = {"tokens": 100 * step, "tokens_per_second": 100.0}
    least = {"step": step, "attempt": 0, "loss": 2.0, "step_seconds": 1.0, **tokens}
    return Metric(**{**least, **fields})


def make_summary(**fields: Any) -> Summary:
    """How a run ended that has made no step."""
    least = {
        "run": "d4-1", "recipe": "d4", "cluster": "local", "steps": 0, "tokens": 0, "seconds": 0.0,
        "tokens_per_second": None, "train_loss": None, "val_bpb": None, "checkpoint": None,
        "restarts": 0, "status": "failed",
    }  # fmt: skip
    return Summary(**{**least, **fields})


def make_folder(path: Path, **fields: Any) -> RunFolder:
    """A run's folder with a run.json."""
    folder = RunFolder(path)
    folder.path.mkdir(parents=True, exist_ok=True)
    make_spec(**fields).write(folder.spec_file)
    return folder


def event(kind: str, **details: Any) -> Event:
    """An event as it is read from a line. Its kind must be complete."""
    found = parse_event({"time": 1.0, "kind": kind, **details})
    assert type(found) is not Event, f"{kind} lacks something: {details}"
    return found


def append_metrics(folder: RunFolder, *metrics: Metric) -> None:
    with JsonLinesWriter(folder.metrics) as writer:
        for metric in metrics:
            writer.write(metric.as_json())


def append_events(folder: RunFolder, *events: Event) -> None:
    with EventLog(folder.events) as log:
        for each in events:
            log.write(each)
