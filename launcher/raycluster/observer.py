"""How bringing up a cluster is shown."""

from __future__ import annotations

from typing import Protocol


class BringUpObserver(Protocol):
    """How bringing up is shown."""

    def say(self, text: str) -> None: ...

    def sent(self, what: str, done: float, total: float | None, *, host: str = "") -> None:
        """See `nanochat.progress.Progress`: bytes on their way to a host."""

    def fetched(self, what: str, done: float, total: float | None, *, host: str = "") -> None:
        """The same of packages that this machine fetches."""
