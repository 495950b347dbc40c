"""A host that is not there, for tests: answers commands from a list and keeps files in a dict."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import CommandFailed
from launcher.ssh.protocol import COMMAND_SECONDS, BytesDone, Completed

Reply = Completed | str | Exception


@dataclass
class FakeTunnel:
    port: int
    open: bool = True

    def close(self) -> None:
        self.open = False


class FakeConnection:
    """A `Connection` without a host.

    `replies`: regular expression -> what a command that it is found in gives: its standard output,
    a Completed, or an exception to raise. The first that fits answers; a command that none fits
    raises AssertionError. `ran` holds the commands, `inputs` what each read from standard input,
    `files` what the host has (path -> bytes), `modes` how small files were written.
    """

    def __init__(
        self,
        name: str = "one",
        replies: Mapping[str, Reply] | Sequence[tuple[str, Reply]] = (),
        files: Mapping[str, bytes] | None = None,
        *,
        address: str = "198.18.0.11",
    ) -> None:
        self.name = name
        self.address = address
        self.replies = list(replies.items() if isinstance(replies, Mapping) else replies)
        self.files = dict(files or {})
        self.modes: dict[str, int] = {}
        self.ran: list[str] = []
        self.inputs: list[bytes] = []
        self.tunnels: list[FakeTunnel] = []
        self.closed = False

    def run(
        self, command: str, *, step: str, timeout: float = COMMAND_SECONDS, stdin: bytes = b""
    ) -> Completed:
        assert not self.closed, f"{step}: the connection is closed"
        self.ran.append(command)
        self.inputs.append(stdin)
        for pattern, reply in self.replies:
            if re.search(pattern, command):
                if isinstance(reply, Exception):
                    raise reply
                return reply if isinstance(reply, Completed) else Completed(0, reply, "")
        raise AssertionError(f"{step}: no reply for this command: {command}")

    def check(
        self, command: str, *, step: str, timeout: float = COMMAND_SECONDS, stdin: bytes = b""
    ) -> str:
        done = self.run(command, step=step, timeout=timeout, stdin=stdin)
        if done.status:
            message = f"{step} failed with exit status {done.status}: {done.stderr.strip()}"
            raise CommandFailed(self.name, message)
        return done.stdout

    def read(self, path: str, offset: int = 0) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path][offset:]

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        self.files[path] = data
        self.modes[path] = mode

    def send(
        self, local: Path, path: str, *, sha256: str, on_bytes: BytesDone = lambda done: None
    ) -> None:
        data = local.read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CommandFailed(self.name, f"{path} arrived with another hash than {sha256}")
        self.files[path] = data
        on_bytes(len(data))

    def fetch(
        self, path: str, local: Path, *, sha256: str, on_bytes: BytesDone = lambda done: None
    ) -> None:
        data = self.read(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CommandFailed(self.name, f"{path} arrived with another hash than {sha256}")
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(data)
        on_bytes(len(data))

    def forward(self, port: int, *, local_port: int = 0) -> FakeTunnel:
        tunnel = FakeTunnel(local_port or port)
        self.tunnels.append(tunnel)
        return tunnel

    def close(self) -> None:
        self.closed = True
