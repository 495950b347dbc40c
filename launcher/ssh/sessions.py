"""The commands of one connection: at most as many at a time as sshd takes, and their errors."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator

import paramiko

from launcher.errors import CommandFailed, ConnectionLost, DiskFull, HostError, HostTimeout
from launcher.ssh.host_transport import HostTransport
from launcher.ssh.process import GONE, Process, close_session, open_session
from launcher.ssh.protocol import Completed
from launcher.ssh.target import SshTarget

OPEN_SECONDS = 30.0  # for the channel of a command: a busy host forks slowly
SESSIONS = 8  # commands and transfers at a time; sshd's MaxSessions is 10, SFTP takes one
ENDING_SECONDS = 1.0
STDERR_LINES = 12
FREE = re.compile(r"\s\d+\s+\d+\s+(\d+)\s+\d+%")  # a line of df -P


class SshSessions:
    """Runs processes on a host over one transport."""

    def __init__(self, target: SshTarget, transport: HostTransport) -> None:
        self.name = target.name
        self.address = target.address
        self.target = target
        self._transport = transport
        self._sessions = threading.BoundedSemaphore(SESSIONS)

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
                raise self.timed_out(step, process.late) from None
            except (paramiko.SSHException, EOFError):
                raise self.lost(step) from None
            finally:
                close_session(channel)

    def gone(self, status: int = -1) -> bool:
        """Whether a command without an exit status has none because its host has gone."""
        if status == -1:
            self._transport.join(ENDING_SECONDS)  # channels end a moment before their connection
        return status == -1 and not self._transport.is_alive()

    def lost(self, step: str) -> ConnectionLost:
        message = f"the connection to {self.address} was lost during: {step}"
        fix = "check that the machine is on and on the network, then do the same again"
        return ConnectionLost(self.name, message, fix=fix)

    def failed(self, done: Completed, step: str, more: str = "") -> CommandFailed | DiskFull:
        """The error of a command that ended badly, with the last that it said."""
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-STDERR_LINES:]
        words = more + "".join(f"\n  {line}" for line in said)
        if done.met_full_disk:
            free = FREE.search(done.stdout)  # in KiB, where the script has asked df
            room = f", {int(free[1]) * 1024:,} bytes are free" if free else ""
            message = f"its disk is full{room}: {step} failed{words}"
            fix = f"free some room on {self.name}: `df -h` shows how much there is"
            return DiskFull(self.name, message, fix=fix)
        how = f"with exit status {done.status}" if done.status != -1 else "(it was killed)"
        return CommandFailed(self.name, f"{step} failed {how}{words}")

    def _open(self, step: str) -> paramiko.Channel:
        try:
            return open_session(self._transport, OPEN_SECONDS)
        except GONE as error:
            if self.gone():
                raise self.lost(step) from None
            if "Timeout" in str(error):
                raise self.timed_out(step, f"did not begin in {OPEN_SECONDS:g} s") from None
            message = f"it opens no channel for {step}: {error}"
            fix = "MaxSessions in its sshd_config must be 10 (the default) or more"
            raise HostError(self.name, message, fix=fix) from None

    def timed_out(self, step: str, late: str) -> HostTimeout:
        return HostTimeout(self.name, f"{step} {late}", fix=f"see what {self.name} is busy with")
