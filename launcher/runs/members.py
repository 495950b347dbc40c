"""The nodes of the group that a run trains on."""

from __future__ import annotations

from collections.abc import Iterable

from launcher.runs.folder import RunFolder
from launcher.runs.records import read_records


def last_members(folder: RunFolder, names: Iterable[str]) -> tuple[str, ...]:
    """The group that the run's events tell of last. `names`: of all its nodes."""
    changes = [event for event in read_records(folder.events) if event["kind"] == "resize"]
    return tuple(changes[-1]["nodes"] if changes else names)
