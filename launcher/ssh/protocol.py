"""How a host is reached, whatever is behind it: commands, files and tunnels.

Paths are POSIX paths on the host; relative ones begin at the login's home folder, for commands and
for files alike. Every call may be made from any thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nanochat.progress import Progress

BytesDone = Callable[[int], None]  # called with the bytes that have arrived so far

COMMAND_SECONDS = 30.0
_DISK_FULL = re.compile(r"No space left on device|Dis[ck] quota exceeded")


@dataclass(frozen=True)
class Completed:
    """How a command ended. `status` is -1 where it was killed."""

    status: int
    stdout: str
    stderr: str

    @property
    def met_full_disk(self) -> bool:
        return _DISK_FULL.search(self.stderr + self.stdout) is not None


class Tunnel(Protocol):
    """A port of this machine that leads to one on the host's loopback, until it is closed."""

    port: int

    def close(self) -> None: ...


class Connection(Protocol):
    """One host. `name` is the node's in the cluster file, `address` what was connected to.

    All methods raise ConnectionLost where the host has gone, HostTimeout (with host and `step`)
    where it takes too long.
    """

    name: str
    address: str

    def run(
        self, command: str, *, step: str, timeout: float = COMMAND_SECONDS, stdin: bytes = b""
    ) -> Completed:
        """Run a POSIX sh script and wait for it, whatever the login shell is.

        `step`: what it is for, in messages. `timeout`: seconds for all of it; then it is killed.
        A process that it leaves running must not hold its standard output or error.
        """

    def check(
        self, command: str, *, step: str, timeout: float = COMMAND_SECONDS, stdin: bytes = b""
    ) -> str:
        """The same; its standard output. Raises CommandFailed with the last that it said, DiskFull
        where that is why."""

    def read(self, path: str, offset: int = 0) -> bytes:
        """A file's bytes from an offset on. Raises FileNotFoundError.

        Cheap enough to be called several times a second: no process is started there.
        """

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Replace a small file at once; its folder is made where it is missing.

        Raises DiskFull.
        """

    def send(
        self, local: Path, path: str, *, sha256: str, on_bytes: BytesDone = lambda done: None
    ) -> None:
        """Send a large file, going on where an earlier attempt was cut off (`path`.partial).

        It appears at `path` whole and with this hash, or not at all. A file that is there already
        with the right hash is left alone; one that arrives with another is sent once more, then
        CommandFailed is raised. Raises DiskFull, and leaves nothing where there is no room.
        """

    def fetch(
        self, path: str, local: Path, *, sha256: str, on_bytes: BytesDone = lambda done: None
    ) -> None:
        """The same the other way. Raises FileNotFoundError."""

    def forward(self, port: int, *, local_port: int = 0) -> Tunnel:
        """Open a tunnel to a port of the host's loopback. Raises OSError where local_port is
        taken; 0 picks a free one. It ends with the connection."""

    def close(self) -> None: ...


def file_progress(progress: Progress, host: str, what: str, before: int, total: int) -> BytesDone:
    """For one of several files: `before` bytes of `total` have gone before it."""
    return lambda done: progress(what, before + done, total, host=host)
