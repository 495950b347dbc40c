"""Sockets to hosts that are not reached directly: through another host, or by a command of the
user's ssh configuration."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

import paramiko

from launcher.errors import HostError, Unreachable
from launcher.transport.process import GONE
from launcher.transport.target import Target

if TYPE_CHECKING:
    from launcher.transport.dial import HostTransport

FORBIDDEN = 1  # administratively prohibited: why a channel is not opened (RFC 4254, section 5.1)

ENDING_SECONDS = 1.0

_jumps: dict[Target, Jump] = {}
_lock = threading.Lock()


class Jump:
    """A connection to a jump host, one for all hosts behind it: sshd takes ten logins at a time
    (MaxStartups), and an agent may ask its user for each."""

    def __init__(self, target: Target) -> None:
        self.transport: HostTransport | None = None
        self._target = target
        self._users = 0
        self._opening = threading.Lock()
        self._error: HostError | None = None  # everybody's who waited: it is not tried again

    @classmethod
    def to(cls, target: Target, open_it: Callable[[], HostTransport]) -> Jump:
        """The one that is there, else a new one; to be given back. Raises what `open_it` does."""
        with _lock:
            jump = _jumps.get(target)
            if jump is None or jump.is_dead():
                jump = _jumps[target] = cls(target)
            jump._users += 1
        try:
            with jump._opening:
                if jump._error is not None:
                    raise jump._error
                if jump.transport is None:
                    jump.transport = open_it()
        except HostError as error:
            jump._error = error
            jump.give_back(lambda transport: None)
            raise
        except BaseException:
            jump.give_back(lambda transport: None)
            raise
        return jump

    def is_dead(self) -> bool:
        return self.transport is not None and not self.transport.is_active()

    def give_back(self, hang_up: Callable[[HostTransport], None]) -> None:
        """Hangs up behind the last host."""
        with _lock:
            self._users -= 1
            last = self._users == 0
            if last and _jumps.get(self._target) is self:
                del _jumps[self._target]
        if last and self.transport is not None:
            hang_up(self.transport)


def through_jump(target: Target, jump: Jump, timeout: float) -> paramiko.Channel:
    """A channel to the target's SSH server. Raises Unreachable or HostError."""
    assert target.jump is not None and jump.transport is not None
    gate, place = target.jump.name, f"{target.address} port {target.port}"
    try:
        return jump.transport.open_channel(
            "direct-tcpip", (target.address, target.port), ("127.0.0.1", 0), timeout=timeout
        )
    except paramiko.ChannelException as error:
        if error.code == FORBIDDEN:
            message = f"its jump host {gate} forbids connections to other hosts"
            fix = f"allow them on {gate}: AllowTcpForwarding yes in its sshd_config"
            raise HostError(target.name, message, fix=fix) from None
        message = f"its jump host {gate} does not reach {place}: {error.text}"
    except GONE:
        message = f"its jump host {gate} got no answer from {place} within {timeout:g} s"
    fix = f"check that the machine is on, and `host:` of node {target.name!r} as {gate} knows it"
    raise Unreachable(target.name, message, fix=fix)


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


def by_command(target: Target) -> CommandSocket:
    """Runs it as ssh would, in a shell."""
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
