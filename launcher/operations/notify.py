"""How operations tell their caller what happens."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from launcher.raycluster.observer import BringUpObserver
from launcher.raycluster.observer import Notify as Notify


def ignore(message: str) -> None:
    """Show nothing."""


class LiveObserver(BringUpObserver, Protocol):
    """Shows messages, and bars while it is entered."""

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...  # fmt: skip


class SilentObserver:
    """Shows nothing."""

    def __enter__(self) -> SilentObserver:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def notify(self, message: str) -> None:
        pass

    def show_transfer(self, what: str, done: float, total: float | None, *, host: str = "") -> None:
        pass

    def show_packages(self, what: str, done: float, total: float | None, *, host: str = "") -> None:
        pass
