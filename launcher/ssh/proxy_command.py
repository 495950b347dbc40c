"""The ProxyCommand of the user's ssh configuration: a process that leads to the host."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
from typing import IO

from launcher.ssh.target import SshTarget

ENDING_SECONDS = 1.0


class CommandSocket(socket.socket):
    """The other end of a ProxyCommand, which ends with it."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]
    reading: threading.Lock  # of `said`
    words = ""

    def close(self) -> None:
        """Also called by paramiko's thread, at the end of what it reads, and so twice at a time."""
        super().close()
        with self.reading:
            self._words()
            self.said.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def why(self) -> str:
        """What it said of its end."""
        try:
            status = self.process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            return "its ProxyCommand leads to no SSH server"
        with self.reading:
            words = self._words()
        last = "".join(f": {line}" for line in words.strip().splitlines()[-1:])
        return f"its ProxyCommand ended with exit status {status}{last}"

    def _words(self) -> str:
        if not self.said.closed:
            self.said.seek(0)
            self.words = self.said.read().decode("utf-8", "replace")
        return self.words


def run_proxy_command(target: SshTarget) -> CommandSocket:
    """Run it as ssh does, in a shell."""
    assert target.proxy_command is not None
    ours, theirs = socket.socketpair()
    line = CommandSocket(fileno=ours.detach())
    line.said = tempfile.TemporaryFile()  # noqa: SIM115
    line.reading = threading.Lock()
    with theirs:
        line.process = subprocess.Popen(
            ["sh", "-c", f"exec {target.proxy_command}"],
            stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=line.said,
            start_new_session=True,
        )  # fmt: skip
    threading.Thread(target=line.process.wait, daemon=True).start()  # no zombie is left
    return line
