"""The commands of one connection: at most as many at a time as sshd takes, and their errors."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import paramiko

from launcher.errors import CommandFailed, ConnectionLost, DiskFull, HostError, HostTimeout
from launcher.formatting import format_bytes, format_duration
from launcher.ssh.df import df_free_bytes
from launcher.ssh.host_transport import HostTransport
from launcher.ssh.process import CONNECTION_ERRORS, Process, close_session, open_session
from launcher.ssh.protocol import Completed
from launcher.ssh.target import SshTarget

SESSION_OPEN_SECONDS = 30.0  # for the channel of a command: a busy host forks slowly
MAX_SESSIONS = 8  # commands and transfers at a time; sshd's MaxSessions is 10, SFTP takes one
TRANSPORT_END_SECONDS = 1.0
STDERR_LINES = 12


class SshSessions:
    """Runs processes on a host over one transport."""

    def __init__(self, target: SshTarget, transport: HostTransport) -> None:
        self.name = target.name
        self.address = target.address
        self.target = target
        self._transport = transport
        self._sessions = threading.BoundedSemaphore(MAX_SESSIONS)

    @contextlib.contextmanager
    def process(self, script: str, *, step: str, seconds: float) -> Iterator[Process]:
        """A script on the host, killed where it is left by an exception.

        `seconds`: how long nothing may move. Raises HostTimeout and ConnectionLost for what
        happens inside.
        """
        with self._sessions:
            channel = self._open(step)
            try:
                process = Process(channel, script, seconds)
                try:
                    yield process
                except BaseException:
                    process.kill()
                    raise
            except TimeoutError:
                raise self.timeout_error(step, process.timeout_message) from None
            except (paramiko.SSHException, EOFError):
                raise self.connection_lost_error(step) from None
            finally:
                close_session(channel)

    def is_disconnected(self, status: int = -1) -> bool:
        """Whether a command without an exit status has none because its host has gone."""
        if status == -1:
            # Channels end a moment before their connection.
            self._transport.join(TRANSPORT_END_SECONDS)
        return status == -1 and not self._transport.is_alive()

    def connection_lost_error(self, step: str) -> ConnectionLost:
        message = f"the connection to {self.address} was lost during: {step}"
        fix = "check that the machine is on and on the network, then do the same again"
        return ConnectionLost(self.name, message, fix=fix)

    def command_failed_error(
        self, done: Completed, step: str, more: str = ""
    ) -> CommandFailed | DiskFull:
        """The error of a command that ended badly, with the last that it said."""
        last_lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-STDERR_LINES:]
        details = more + "".join(f"\n  {line}" for line in last_lines)
        if done.met_full_disk:
            free = df_free_bytes(done.stdout)  # if the script has asked df
            room = "" if free is None else f", {format_bytes(free)} are free"
            message = f"its disk is full{room}: {step} failed{details}"
            fix = f"free some room on {self.name}: `df -h` shows how much there is"
            return DiskFull(self.name, message, fix=fix)
        how = f"with exit status {done.status}" if done.status != -1 else "(it was killed)"
        return CommandFailed(self.name, f"{step} failed {how}{details}")

    def _open(self, step: str) -> paramiko.Channel:
        try:
            return open_session(self._transport, SESSION_OPEN_SECONDS)
        except CONNECTION_ERRORS as error:
            if self.is_disconnected():
                raise self.connection_lost_error(step) from None
            if "Timeout" in str(error):
                raise self.timeout_error(
                    step, f"did not begin in {format_duration(SESSION_OPEN_SECONDS)}"
                ) from None
            message = f"it opens no channel for {step}: {error}"
            fix = "MaxSessions in its sshd_config must be 10 (the default) or more"
            raise HostError(self.name, message, fix=fix) from None

    def timeout_error(self, step: str, timeout_message: str) -> HostTimeout:
        return HostTimeout(
            self.name, f"{step} {timeout_message}", fix=f"see what {self.name} is busy with"
        )
