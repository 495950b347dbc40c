"""Who watches a run."""

from __future__ import annotations

from typing import Any, Protocol


class Observer(Protocol):
    """How a run is watched and stopped. Called on every rank; only rank 0's stop counts."""

    def step(self, record: dict[str, Any]) -> None:
        """One finished update, as a line of metrics.jsonl."""

    def event(self, kind: str, **details: Any) -> None:
        """evaluate, checkpoint, memory, fault, slow, text, resume or stop."""

    def stop_requested(self) -> bool:
        """True asks for a checkpoint and an end after the current step."""
