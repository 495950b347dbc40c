"""How long work tells its caller how far it has come."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then, from any thread."""

    def __call__(self, what: str, done: float, total: float | None, *, host: str = "") -> None:
        """`done` of `total` bytes (or files) of `what`. `total` None: it is not known, and `what`
        is a message. `host`: the machine that works; "" is this one."""


def no_progress(what: str, done: float, total: float | None, *, host: str = "") -> None:
    """Show nothing."""
