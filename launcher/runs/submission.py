"""Since when a driver is to be at work in a cluster's run: submitted.json."""

from __future__ import annotations

from pydantic import Field

from launcher.runs.record import Count, Record, Timestamp


class Submission(Record):
    """Written when a client submits the run, and at each start of a driver after that."""

    time: Timestamp = 0.0
    """When the client submitted it, in seconds since 1970."""
    started_by_supervisor: bool = Field(
        default=False, validation_alias="by_itself", serialization_alias="by_itself"
    )
    """Whether the supervisor started the present driver, without a client."""
    starts: Count = 1
    """Drivers started in a row without a new step."""
    step: Count = 0
    """The last step that was made when the present driver started."""
