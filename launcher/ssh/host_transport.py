"""Paramiko's transport without its rough edges: quiet logs, refusals that all callers see, one way
to hang up."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from functools import partial

import paramiko

from launcher.ssh.process import CONNECTION_ERRORS

logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False  # its errors reach the user as ours


class HostTransport(paramiko.Transport):
    """An SSH connection to one host."""

    on_hang_up: Callable[[], None] | None = None
    """Called once, after the connection is closed: releases the jump host that it went through."""
    saved_exception: Exception | None

    def run(self) -> None:
        """Paramiko's thread. At its end it closes its socket, which may be a channel of a jump
        host: that raises if the jump host's connection ends at the same moment."""
        with contextlib.suppress(*CONNECTION_ERRORS):
            super().run()

    def get_exception(self) -> Exception | None:
        """What a thread that waits asks for. The refusal of a channel stays: of several that are
        refused at once, paramiko gives the reason to one and "Unable to open channel." to others.
        """
        with self.lock:
            error = self.saved_exception
            if not isinstance(error, paramiko.ChannelException):
                self.saved_exception = None
        return error


def hang_up(transport: HostTransport) -> None:
    """Close a connection, then release its jump host."""
    shut_down = partial(transport.sock.shutdown, socket.SHUT_RDWR)
    # Shutting down first ends its thread now, not at its next poll.
    for end in (shut_down, transport.close, transport.sock.close):
        with contextlib.suppress(*CONNECTION_ERRORS):
            end()
    release, transport.on_hang_up = transport.on_hang_up, None
    if release is not None:
        release()
