"""How bringing up a cluster is shown."""

from __future__ import annotations

from typing import Protocol


class BringUpObserver(Protocol):
    """How bringing up is shown."""

    def say(self, text: str) -> None: ...

    def sent(self, host: str, what: str, done: int, total: int) -> None: ...

    def fetched(self, name: str, done: int, total: int) -> None: ...
