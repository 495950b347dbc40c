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

EXIT_STATUS_SECONDS = 1.0


class CommandSocket(socket.socket):
    """The other end of a ProxyCommand, which ends with it."""

    process: subprocess.Popen[bytes]
    output: IO[bytes]
    output_lock: threading.Lock
    output_text = ""

    def close(self) -> None:
        """Also called by paramiko's thread, at the end of what it reads, and so twice at a time."""
        super().close()
        with self.output_lock:
            self._read_output()
            self.output.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)

    def exit_message(self) -> str:
        """Why it leads nowhere: its exit status and the last line that it printed."""
        try:
            status = self.process.wait(EXIT_STATUS_SECONDS)
        except subprocess.TimeoutExpired:
            return "its ProxyCommand leads to no SSH server"
        with self.output_lock:
            text = self._read_output()
        last = "".join(f": {line}" for line in text.strip().splitlines()[-1:])
        return f"its ProxyCommand ended with exit status {status}{last}"

    def _read_output(self) -> str:
        if not self.output.closed:
            self.output.seek(0)
            self.output_text = self.output.read().decode("utf-8", "replace")
        return self.output_text


def start_proxy_command(target: SshTarget) -> CommandSocket:
    """Run it as ssh does, in a shell."""
    assert target.proxy_command is not None
    ours, theirs = socket.socketpair()
    connection = CommandSocket(fileno=ours.detach())
    connection.output = tempfile.TemporaryFile()  # noqa: SIM115
    connection.output_lock = threading.Lock()
    with theirs:
        connection.process = subprocess.Popen(
            ["sh", "-c", f"exec {target.proxy_command}"],
            stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=connection.output,
            start_new_session=True,
        )  # fmt: skip
    threading.Thread(target=connection.process.wait, daemon=True).start()  # no zombie is left
    return connection
