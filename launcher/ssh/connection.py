"""A host over SSH."""

from __future__ import annotations

from pathlib import Path

from launcher.errors import CommandFailed, LoginRefused
from launcher.formatting import format_duration
from launcher.ssh import transfer
from launcher.ssh.host_transport import HostTransport, hang_up
from launcher.ssh.process import CONNECTION_ERRORS
from launcher.ssh.protocol import COMMAND_SECONDS, BytesDone, Completed
from launcher.ssh.rediscovery import log_in_or_rediscover
from launcher.ssh.sessions import SshSessions
from launcher.ssh.sftp import READ_SECONDS, FileReader
from launcher.ssh.target import SshTarget
from launcher.ssh.tunnel import SshTunnel

CONNECT_SECONDS = 10.0


def connect(target: SshTarget, *, timeout: float = CONNECT_SECONDS) -> SshConnection:
    """Reach a host, check its key, log in.

    Its `address` is another one than the target's where it has moved.

    `timeout`: seconds for each of these steps. Raises Unreachable, Untrusted, KeyChanged,
    LoginRefused or HostTimeout.
    """
    return SshConnection(*log_in_or_rediscover(target, timeout))


class SshConnection(SshSessions):
    """A `Connection` to a host that is logged in to."""

    def __init__(self, target: SshTarget, transport: HostTransport) -> None:
        super().__init__(target, transport)
        self._reader = FileReader(transport)
        self._tunnels: list[SshTunnel] = []

    def run(
        self, command: str, *, step: str, timeout: float = COMMAND_SECONDS, stdin: bytes = b""
    ) -> Completed:
        with self.process(command, step=step, seconds=timeout) as process:
            process.set_deadline(timeout)
            process.write_stdin_and_close(stdin)
            started = process.skip_login_output()
            stdout = process.read_all()
            status = process.wait()
        if self.is_disconnected(status):
            raise self.connection_lost_error(step)
        if not started and status != -1:
            raise self._no_shell(stdout.decode("utf-8", "replace") + process.stderr())
        return Completed(status, stdout.decode("utf-8", "replace"), process.stderr())

    def check(
        self, command: str, *, step: str, timeout: float = COMMAND_SECONDS, stdin: bytes = b""
    ) -> str:
        done = self.run(command, step=step, timeout=timeout, stdin=stdin)
        if done.status:
            raise self.command_failed_error(done, step, f"\n  command: {_shortened(command)}")
        return done.stdout

    def read(self, path: str, offset: int = 0) -> bytes:
        step = f"reading {path}"
        try:
            return self._reader.read(path, offset)
        except FileNotFoundError:
            raise FileNotFoundError(2, "no such file on the host", f"{self.name}:{path}") from None
        except TimeoutError:
            raise self.timeout_error(
                step, f"stood still for {format_duration(READ_SECONDS)}"
            ) from None
        except PermissionError:
            raise CommandFailed(self.name, f"{step} failed: permission denied") from None
        except CONNECTION_ERRORS as error:
            if self.is_disconnected():
                raise self.connection_lost_error(step) from None
            raise CommandFailed(self.name, f"{step} failed: {error or 'no SFTP there'}") from None

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        step = f"writing {path}"
        done = self.run(transfer.write_script(path, len(data), mode), step=step, stdin=data)
        if done.status:
            raise self.command_failed_error(done, step)

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

    def _no_shell(self, output: str) -> LoginRefused:
        user = self.target.user
        message = f"{user} may log in, but runs no commands: {output.strip() or 'nothing was said'}"
        fix = f"give {user} a shell (sudo chsh -s /bin/bash {user}), or correct `user:`"
        return LoginRefused(self.name, message, fix=fix)

    def close(self) -> None:
        for tunnel in self._tunnels:
            tunnel.close()
        hang_up(self._transport)


def _shortened(command: str, characters: int = 200) -> str:
    line = " ".join(command.split())
    return line if len(line) <= characters else f"{line[:characters]}..."
