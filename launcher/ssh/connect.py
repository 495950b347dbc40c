"""The way to a host's SSH server, up to its host key: before any trust and any login."""

from __future__ import annotations

import contextlib
import socket
import sys
from typing import Any

import paramiko

from launcher.errors import ConnectionLost, HostError, HostTimeout, Unreachable
from launcher.formatting import format_duration
from launcher.ssh import prompts
from launcher.ssh.auth import log_in
from launcher.ssh.host_transport import HostTransport, hang_up
from launcher.ssh.jump import Jump, open_jump_channel
from launcher.ssh.known_hosts import HostKey, known_kinds, verify_host_key
from launcher.ssh.process import CONNECTION_ERRORS
from launcher.ssh.proxy_command import CommandSocket, start_proxy_command
from launcher.ssh.target import SshTarget

# A dead peer is noticed after DEAD_SECONDS of silence, whether something is under way or not. 12 is
# the least that a cable pulled for 5 s survives: TCP tries again after 0.2, 0.6, 1.4, 3 and 6.2 s.
DEAD_SECONDS = 12
PROBE_SECONDS = 2
# The option that bounds unanswered data: <netinet/tcp.h> on Linux (ms) and macOS (s), <ws2ipdef.h>
# on Windows (s). Python names the first only.
DEAD_OPTION = {"linux": (18, 1000), "darwin": (0x80, 1), "win32": (5, 1)}

# Ciphers in one pass first: fastest and safest of those that paramiko has. No CBC, MD5 or SHA-1.
CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
DIGESTS = tuple(f"hmac-sha2-{bits}{etm}" for etm in ("-etm@openssh.com", "") for bits in (256, 512))
RSA = ("rsa-sha2-512", "rsa-sha2-256")


def open_transport(target: SshTarget, timeout: float) -> tuple[HostTransport, HostKey]:
    """A connection with its keys exchanged, and the host key, which nobody has checked yet. That of
    a jump host on the way is checked, and it is logged in to.

    `timeout`: seconds for each of the TCP connection, the greeting and the key exchange. Raises
    Unreachable or HostTimeout; for a jump host also what `verify_host_key` and `log_in` do.
    """
    jump = None if target.jump is None else _acquire_jump(target, target.jump, timeout)
    try:
        if jump is not None:
            connection: Any = open_jump_channel(target, jump, timeout)
        elif target.proxy_command is not None:
            connection = start_proxy_command(target)
        else:
            connection = _open_tcp(target, timeout)
    except BaseException:
        if jump is not None:
            jump.release()
        raise
    try:
        transport = HostTransport(connection)
        if jump is not None:
            transport.on_hang_up = jump.release
    except BaseException:
        connection.close()
        if jump is not None:
            jump.release()
        raise
    try:
        transport.banner_timeout = transport.handshake_timeout = timeout
        transport.auth_timeout = transport.channel_timeout = timeout
        _choose_algorithms(transport, target)
        _handshake(transport, target, timeout)
        key = transport.get_remote_server_key()
        return transport, HostKey(key.get_name(), key.asbytes())
    except BaseException:
        hang_up(transport)
        raise


def open_login(target: SshTarget, timeout: float) -> HostTransport:
    """A connection whose host key is checked and that is logged in. Raises what `open_transport`,
    `verify_host_key` and `log_in` do."""
    before = prompts.prompt_count()
    try:
        return _log_in_once(target, timeout)
    except ConnectionLost:
        if prompts.prompt_count() == before:
            raise
    return _log_in_once(target, timeout)  # it hung up while the user typed: now that is known


def _log_in_once(target: SshTarget, timeout: float) -> HostTransport:
    transport, key = open_transport(target, timeout)
    try:
        verify_host_key(target, key)
        log_in(transport, target)
    except BaseException:
        hang_up(transport)
        raise
    return transport


def _acquire_jump(target: SshTarget, jump_target: SshTarget, timeout: float) -> Jump:
    """Raises errors of the target: it is what the user knows."""

    try:
        return Jump.acquire(jump_target, lambda: open_login(jump_target, timeout))
    except HostError as error:
        raise error.through(target.name) from None


def _open_tcp(target: SshTarget, timeout: float) -> socket.socket:
    address, port = target.address, target.port
    node = f"node {target.name!r}"
    try:
        connection = socket.create_connection((address, port), timeout)
    except socket.gaierror:
        message = f"there is no host of the name {address}"
        fix = f"correct `host:` of {node}, or give its IP address"
    except ConnectionRefusedError:
        message = f"port {port} of {address} is closed: no SSH server answers there"
        fix = f"start sshd on it (sudo systemctl start ssh), or correct `port:` of {node}"
    except TimeoutError:
        message = f"no answer from {address} port {port} within {format_duration(timeout)}"
        fix = f"check that the machine is on and on the network, or correct `host:` of {node}"
    except OSError as error:
        message = f"no way to {address}: {(error.strerror or str(error)).lower()}"
        fix = f"check that the machine is on and on the network, or correct `host:` of {node}"
    else:
        _set_keepalive(connection)
        return connection
    if target.config_note:
        message += f"; {target.config_note}"
    raise Unreachable(target.name, message, fix=fix) from None


def _set_keepalive(connection: socket.socket) -> None:
    """Small packets leave at once, and the system notices a peer that has gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "darwin":
        idle = socket.TCP_KEEPALIVE
    else:
        idle = socket.TCP_KEEPIDLE
    options = [
        (idle, PROBE_SECONDS),
        (socket.TCP_KEEPINTVL, PROBE_SECONDS),
        (socket.TCP_KEEPCNT, DEAD_SECONDS // PROBE_SECONDS - 1),
    ]
    if sys.platform in DEAD_OPTION:
        option, units_per_second = DEAD_OPTION[sys.platform]
        options += [(option, DEAD_SECONDS * units_per_second)]
    for option, value in options:
        with contextlib.suppress(OSError):  # an old Windows: timeouts remain
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _choose_algorithms(transport: paramiko.Transport, target: SshTarget) -> None:
    """Of the host's keys, the known ones are asked for first: they can be checked."""
    options = transport.get_security_options()
    options.ciphers = [name for name in CIPHERS if name in options.ciphers]
    options.digests = [name for name in DIGESTS if name in options.digests]
    known = [
        algorithm
        for kind in known_kinds(target)
        for algorithm in (RSA if kind == "ssh-rsa" else (kind,))
        if algorithm in options.key_types
    ]
    options.key_types = list(dict.fromkeys([*known, *options.key_types]))


def _handshake(transport: paramiko.Transport, target: SshTarget, timeout: float) -> None:
    endpoint = f"{target.address} port {target.port}"
    try:
        transport.start_client(timeout=2 * timeout)
    except paramiko.IncompatiblePeer as error:
        message = f"{endpoint} has no way of encryption in common with us: {error}"
        raise HostError(target.name, message, fix="update its OpenSSH to 7.4 or newer") from None
    except CONNECTION_ERRORS as error:
        fix = f"check `port:` of node {target.name!r}; a busy sshd may need another try"
        if isinstance(transport.sock, CommandSocket) and not transport.remote_version:
            message = transport.sock.exit_message()
            fix = f"correct ProxyCommand in ~/.ssh/config until this works: ssh {target.address}"
        elif transport.remote_version:
            message = f"{endpoint} hung up during the key exchange: {error}"
        else:
            message = f"{endpoint} answers, but not as an SSH server"
        raise Unreachable(target.name, message, fix=fix) from None
    if not transport.initial_kex_done:
        message = f"{endpoint}: the key exchange took longer than {format_duration(2 * timeout)}"
        raise HostTimeout(target.name, message, fix="try again: it may be busy")
