"""Why a run cannot go on: failure.json, which `launch resume` removes."""

from __future__ import annotations

from launcher.runs.record import Record


class Failure(Record):
    """An error for the user, as the driver met it."""

    message: str
    fix: str | None = None
