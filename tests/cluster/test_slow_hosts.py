"""Hosts that are slow to answer or say more than was asked."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from lab import Host
from reach import Connect

PORT = 2299
GREETING_SECONDS = 4.0


@contextlib.contextmanager
def relay(host: Host, *, seconds: float = 0.0, lines: int = 0) -> Iterator[int]:
    """A port of this machine that leads to the host's sshd, for one connection: after that many
    seconds, and after `lines` of text, which may come before the greeting (RFC 4253, section 4.2).
    """

    def carry(source: socket.socket, drain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                drain.sendall(data)
        with contextlib.suppress(OSError):
            drain.shutdown(socket.SHUT_RDWR)

    def serve() -> None:
        near, _ = listener.accept()
        time.sleep(seconds)
        with near, socket.create_connection((host.address, host.port)) as far:
            near.sendall(b"authorised users only\r\n" * lines)
            back = threading.Thread(target=carry, args=(far, near))
            back.start()
            carry(near, far)
            back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("seconds", "lines"), [(GREETING_SECONDS, 0), (0.0, 60)], ids=["late", "talkative"]
)
def test_a_greeting(connected: Connect, box: Host, seconds: float, lines: int) -> None:
    with relay(box, seconds=seconds, lines=lines) as port:
        pinned = box.known_hosts_line().replace(f"[{box.address}]:2222", f"[127.0.0.1]:{port}")
        connection = connected(box, host="127.0.0.1", port=port, pinned=pinned)
        assert connection.check("echo hi", step="a test") == "hi\n"
        connection.close()


def test_a_long_banner_and_a_login_shell_that_talks(connected: Connect, box: Host) -> None:
    """An sftp-server that is started by that shell talks too."""
    banner = box.disk / "etc" / "banner"
    banner.write_text("Authorised users only. \u00fc\n" * 500)
    config = box.disk / "etc" / "sshd_config"
    text = config.read_text()
    config.write_text(text.replace("internal-sftp", "/usr/lib/openssh/sftp-server"))
    (box.home / ".bashrc").write_text("echo welcome to box; echo really >&2\n")
    (box.home / "file").write_bytes(b"content")
    try:
        with box.other_sshd(PORT, f"Banner={banner}"):
            connection = connected(box, port=PORT, pinned=box.known_hosts_line(PORT))
            assert connection.check("echo hi", step="a test") == "hi\n"
            connection.write("other", b"written")
            assert connection.read("other") == b"written"
            assert connection.read("file", 3) == b"tent"
    finally:
        config.write_text(text)
        for name in (".bashrc", "file", "other"):
            (box.home / name).unlink(missing_ok=True)


def test_a_slow_link(connected: Connect, box: Host) -> None:
    box.limit_link(1)
    try:
        connection = connected(box)
        assert connection.check("echo hi", step="a test") == "hi\n"
        connection.write("slow", b"x" * 300_000)
        assert connection.read("slow") == b"x" * 300_000
    finally:
        box.unlimit_link()
        (box.home / "slow").unlink(missing_ok=True)
