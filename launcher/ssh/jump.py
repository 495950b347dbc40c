"""Jump hosts: one connection to each, shared by all hosts behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import paramiko

from launcher.errors import HostError, Unreachable
from launcher.formatting import format_duration
from launcher.ssh.host_transport import HostTransport, hang_up
from launcher.ssh.process import CONNECTION_ERRORS
from launcher.ssh.target import SshTarget

FORBIDDEN = 1  # administratively prohibited: why a channel is not opened (RFC 4254, section 5.1)

_jumps: dict[SshTarget, Jump] = {}
_lock = threading.Lock()


class Jump:
    """A connection to a jump host, one for all hosts behind it: sshd takes ten logins at a time
    (MaxStartups), and an agent may ask its user for each."""

    def __init__(self, target: SshTarget) -> None:
        self.transport: HostTransport | None = None
        self._target = target
        self._users = 0
        self._opening = threading.Lock()
        self._error: HostError | None = None  # everybody's who waited: it is not tried again

    @classmethod
    def acquire(cls, target: SshTarget, connect: Callable[[], HostTransport]) -> Jump:
        """The one that is there, else a new one; to be given back. Raises what `connect` does."""
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
                    jump.transport = connect()
        except HostError as error:
            jump._error = error
            jump._remove_user()
            raise
        except BaseException:
            jump._remove_user()
            raise
        return jump

    def is_dead(self) -> bool:
        return self.transport is not None and not self.transport.is_active()

    def release(self) -> None:
        """Close it if no other host goes through it any more."""
        if self._remove_user() and self.transport is not None:
            hang_up(self.transport)

    def _remove_user(self) -> bool:
        """One user less; whether that was the last one."""
        with _lock:
            self._users -= 1
            last = self._users == 0
            if last and _jumps.get(self._target) is self:
                del _jumps[self._target]
        return last


def open_jump_channel(target: SshTarget, jump: Jump, timeout: float) -> paramiko.Channel:
    """A channel to the target's SSH server. Raises Unreachable or HostError."""
    assert target.jump is not None and jump.transport is not None
    jump_name, endpoint = target.jump.name, f"{target.address} port {target.port}"
    try:
        return jump.transport.open_channel(
            "direct-tcpip", (target.address, target.port), ("127.0.0.1", 0), timeout=timeout
        )
    except paramiko.ChannelException as error:
        if error.code == FORBIDDEN:
            message = f"its jump host {jump_name} forbids connections to other hosts"
            fix = f"allow them on {jump_name}: AllowTcpForwarding yes in its sshd_config"
            raise HostError(target.name, message, fix=fix) from None
        message = f"its jump host {jump_name} does not reach {endpoint}: {error.text}"
    except CONNECTION_ERRORS:
        limit = format_duration(timeout)
        message = f"its jump host {jump_name} got no answer from {endpoint} within {limit}"
    fix = (
        f"check that the machine is on, and `host:` of node {target.name!r} as {jump_name} knows it"
    )
    raise Unreachable(target.name, message, fix=fix)
