"""A command on a terminal of its own, and what a user types there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from running import hear_ctrl_c

WAIT_SECONDS = 30.0


class Terminal:
    """stdin and stderr of the command are the terminal, which is its controlling one."""

    def __init__(self, words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self._user, self._inside = pty.openpty()
        self.shown = self.stdout = ""
        self._read = 0  # of what is shown
        self._process = subprocess.Popen(
            words, cwd=folder, env=environment, stdin=self._inside, stdout=subprocess.PIPE,
            stderr=self._inside, text=True, start_new_session=True,
            preexec_fn=_take_terminal,
        )  # fmt: skip

    def close(self) -> None:
        with self._process:
            self._process.kill()
        os.close(self._user)
        os.close(self._inside)

    def expect(self, words: str) -> None:
        """Wait until they are shown, after all that was expected before."""
        self._look_until(lambda: words in self.shown[self._read :], f"'{words}'")
        self._read = self.shown.index(words, self._read) + len(words)

    def type(self, text: str) -> None:
        os.write(self._user, text.encode())

    @property
    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self._inside)[3] & termios.ECHO)

    def end(self) -> int:
        """Its exit code; `stdout` is all that it printed there."""
        self._look_until(lambda: self._process.poll() is not None, "its end")
        self.look_for(0.05)
        self.stdout = self._process.communicate()[0]
        return self._process.returncode

    def _look_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what}: {self.shown}"
            self.look_for(0.05)

    def look_for(self, seconds: float) -> None:
        """Until nothing new has been shown for so long."""
        while select.select([self._user], [], [], seconds)[0]:
            self.shown += os.read(self._user, 65536).decode().replace("\r\n", "\n")


def _take_terminal() -> None:
    hear_ctrl_c()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
