"""A port of this machine that leads to a port of the host's loopback."""

from __future__ import annotations

import contextlib
import socket
import threading

import paramiko

from launcher.ssh.process import CONNECTION_ERRORS, close_session

LOOPBACK = "127.0.0.1"
TUNNEL_OPEN_SECONDS = 10.0
TUNNEL_READ_BYTES = 1 << 16


class SshTunnel:
    """Any number of connections at a time, each with two threads, until it is closed.

    Where nothing listens on the host's port, a connection is closed at once, as a refused one.
    """

    def __init__(self, transport: paramiko.Transport, port: int, local_port: int) -> None:
        self._transport = transport
        self._host_port = port
        self._listener = socket.create_server((LOOPBACK, local_port))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends what goes through it as well."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):  # wakes accept() on every system
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        self._thread.join()
        self._listener.close()
        for client in list(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closed:
                client.close()
                return
            self._open.add(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            channel = self._transport.open_channel(
                "direct-tcpip", (LOOPBACK, self._host_port), client.getpeername(),
                timeout=TUNNEL_OPEN_SECONDS,
            )  # fmt: skip
            back = threading.Thread(target=_to_client, args=(channel, client), daemon=True)
            back.start()
            _to_host(client, channel)
            back.join()
            close_session(channel)
        except CONNECTION_ERRORS:
            pass  # nothing listens there, or the host has gone: the client sees its end
        finally:
            self._open.discard(client)
            client.close()


def _to_host(client: socket.socket, channel: paramiko.Channel) -> None:
    """Until the client has no more to say; the other way stays open."""
    with contextlib.suppress(OSError):
        while data := client.recv(TUNNEL_READ_BYTES):
            channel.sendall(data)
    with contextlib.suppress(*CONNECTION_ERRORS):
        channel.shutdown_write()


def _to_client(channel: paramiko.Channel, client: socket.socket) -> None:
    with contextlib.suppress(*CONNECTION_ERRORS):
        while data := channel.recv(TUNNEL_READ_BYTES):
            client.sendall(data)
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_WR)
