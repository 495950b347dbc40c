"""How long work on a cluster tells its caller what happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Notify = Callable[[str], None]  # called with a sentence for the user


class BringUpObserver(Protocol):
    """How bringing up is shown."""

    def notify(self, message: str) -> None: ...

    def show_transfer(self, what: str, done: float, total: float | None, *, host: str = "") -> None:
        """A `nanochat.progress.Progress` for bytes on their way to or from a host."""

    def show_packages(self, what: str, done: float, total: float | None, *, host: str = "") -> None:
        """A `nanochat.progress.Progress` for packages that this machine fetches."""
