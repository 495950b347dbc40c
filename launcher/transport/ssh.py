"""A host over SSH."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko

from launcher.errors import (
    CommandFailed,
    ConnectionLost,
    DiskFull,
    HostError,
    HostTimeout,
    LoginRefused,
)
from launcher.transport import transfer
from launcher.transport.connection import COMMAND_SECONDS, BytesDone, Completed
from launcher.transport.dial import HostTransport, hang_up
from launcher.transport.moved import log_in_wherever
from launcher.transport.process import GONE, Process, close_session, open_session
from launcher.transport.sftp import READ_SECONDS, FileReader
from launcher.transport.target import Target
from launcher.transport.tunnel import SshTunnel

CONNECT_SECONDS = 10.0
OPEN_SECONDS = 30.0  # for the channel of a command: a busy host forks slowly
SESSIONS = 8  # commands and transfers at a time; sshd's MaxSessions is 10, SFTP takes one
ENDING_SECONDS = 1.0
STDERR_LINES = 12
FREE = re.compile(r"\s\d+\s+\d+\s+(\d+)\s+\d+%")  # a line of df -P


def connect(target: Target, *, timeout: float = CONNECT_SECONDS) -> SshConnection:
    """Reach a host, check its key, log in.

    Its `address` is another one than the target's where it has moved.

    `timeout`: seconds for each of these steps. Raises Unreachable, Untrusted, KeyChanged,
    LoginRefused or HostTimeout.
    """
    return SshConnection(*log_in_wherever(target, timeout))


class SshConnection:
    """A `Connection` to a host that is logged in to."""

    def __init__(self, target: Target, transport: HostTransport) -> None:
        self.name = target.name
        self.address = target.address
        self.target = target
        self._transport = transport
        self._sessions = threading.BoundedSemaphore(SESSIONS)
        self._reader = FileReader(transport)
        self._tunnels: list[SshTunnel] = []

    def run(
        self, command: str, *, step: str, timeout: float = COMMAND_SECONDS, stdin: bytes = b""
    ) -> Completed:
        with self.process(command, step=step, seconds=timeout) as process:
            process.end_by(timeout)
            process.feed_and_end(stdin)
            began = process.skip_noise()
            stdout = process.read_all()
            status = process.wait()
        if self.gone(status):
            raise self.lost(step)
        if not began and status != -1:
            raise self._no_shell(stdout.decode("utf-8", "replace") + process.stderr())
        return Completed(status, stdout.decode("utf-8", "replace"), process.stderr())

    def check(
        self, command: str, *, step: str, timeout: float = COMMAND_SECONDS, stdin: bytes = b""
    ) -> str:
        done = self.run(command, step=step, timeout=timeout, stdin=stdin)
        if done.status:
            raise self.failed(done, step, f"\n  command: {_shortened(command)}")
        return done.stdout

    def read(self, path: str, offset: int = 0) -> bytes:
        step = f"reading {path}"
        try:
            return self._reader.read(path, offset)
        except FileNotFoundError:
            raise FileNotFoundError(2, "no such file on the host", f"{self.name}:{path}") from None
        except TimeoutError:
            raise self._timeout(step, f"stood still for {READ_SECONDS:g} s") from None
        except PermissionError:
            raise CommandFailed(self.name, f"{step} failed: permission denied") from None
        except GONE as error:
            if self.gone():
                raise self.lost(step) from None
            raise CommandFailed(self.name, f"{step} failed: {error or 'no SFTP there'}") from None

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        step = f"writing {path}"
        done = self.run(transfer.write_script(path, len(data), mode), step=step, stdin=data)
        if done.status:
            raise self.failed(done, step)

    def send(
        self, local: Path, path: str, *, sha256: str, on_bytes: BytesDone = lambda done: None
    ) -> None:
        transfer.send(self, local, path, sha256, on_bytes)

    def fetch(
        self, path: str, local: Path, *, sha256: str, on_bytes: BytesDone = lambda done: None
    ) -> None:
        transfer.fetch(self, path, local, sha256, on_bytes)

    def forward(self, port: int, *, local_port: int = 0) -> SshTunnel:
        tunnel = SshTunnel(self._transport, port, local_port)
        self._tunnels.append(tunnel)
        return tunnel

    def close(self) -> None:
        for tunnel in self._tunnels:
            tunnel.close()
        hang_up(self._transport)

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
                raise self._timeout(step, process.late) from None
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

    def _no_shell(self, said: str) -> LoginRefused:
        user = self.target.user
        message = f"{user} may log in, but runs no commands: {said.strip() or 'nothing was said'}"
        fix = f"give {user} a shell (sudo chsh -s /bin/bash {user}), or correct `user:`"
        return LoginRefused(self.name, message, fix=fix)

    def _open(self, step: str) -> paramiko.Channel:
        try:
            return open_session(self._transport, OPEN_SECONDS)
        except GONE as error:
            if self.gone():
                raise self.lost(step) from None
            if "Timeout" in str(error):
                raise self._timeout(step, f"did not begin in {OPEN_SECONDS:g} s") from None
            message = f"it opens no channel for {step}: {error}"
            fix = "MaxSessions in its sshd_config must be 10 (the default) or more"
            raise HostError(self.name, message, fix=fix) from None

    def _timeout(self, step: str, late: str) -> HostTimeout:
        return HostTimeout(self.name, f"{step} {late}", fix=f"see what {self.name} is busy with")


def _shortened(command: str, characters: int = 200) -> str:
    line = " ".join(command.split())
    return line if len(line) <= characters else f"{line[:characters]}..."
