"""Bringing a cluster up as a person watches it: lines, and bars while bytes travel."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)

from launcher.formatting import format_duration
from launcher.raycluster.bring_up import StageTimes
from launcher.ssh import prompts


class BringUpView:
    """Prints to stderr: live bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._last_messages: dict[str, str] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> BringUpView:
        self._bar.start()
        if self._console.is_terminal:
            prompts.add_screen(self._bar)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        prompts.remove_screen(self._bar)
        self._bar.stop()

    def notify(self, text: str) -> None:
        self._console.print(f"  {text}", soft_wrap=True, markup=False)

    def show_transfer(self, what: str, done: float, total: float | None, *, host: str = "") -> None:
        host_name = host or "this machine"
        if total:
            self._show(host_name, f"{host_name}: {what}", done, total)
        elif self._last_messages.get(host_name) != what:
            self._last_messages[host_name] = what
            self.notify(f"{host_name}: {what}")

    def show_packages(self, what: str, done: float, total: float | None, *, host: str = "") -> None:
        self._show("packages", "fetching packages", done, total or 0)

    def table(self, stages: StageTimes) -> str:
        """Seconds of each stage on one line, those of single hosts below it."""
        parts = [f"{name} {format_duration(seconds)}" for name, seconds in stages.seconds.items()]
        lines = ["  " + ", ".join(parts)]
        for host, host_seconds in stages.hosts.items():
            of_host = [
                f"{name} {format_duration(seconds)}" for name, seconds in host_seconds.items()
            ]
            if of_host:
                lines.append(f"    {host}: " + ", ".join(of_host))
        return "\n".join(lines)

    def _show(self, key: str, description: str, done: float, total: float) -> None:
        with self._lock:
            # Without a terminal a line for each kind of work, not for each of 84 packages.
            kind = " ".join(description.split()[:2])
            if self._last_messages.get(key) != kind and not self._console.is_terminal:
                self.notify(f"{kind} ..." if done < total else description)
            self._last_messages[key] = kind
            if key not in self._tasks:
                self._tasks[key] = self._bar.add_task(description, total=total)
            self._bar.update(
                self._tasks[key], description=description, completed=done, total=total,
                visible=done < total,
            )  # fmt: skip
