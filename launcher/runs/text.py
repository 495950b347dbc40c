"""Text of the client's that the head cannot reach: sent once, known there by its content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from launcher.config.recipe import Data
from launcher.provision.host_lock import host_lock
from launcher.transport.connection import Connection
from nanochat.dataset.sources import parse_source
from nanochat.storage import sha256_of

KEY_LENGTH = 16
Sent = Callable[[str, str, int, int], None]  # host, what, bytes sent, bytes to send


def send_text(head: Connection, data: Data, base: Path, progress: Sent) -> dict[str, str]:
    """Send what `files:` names. Key of Data -> the spec by which the head finds it.

    `base`: where relative patterns begin. Files that are there already are not sent again; one
    that was cut off goes on. Raises HostError; DataError where a file cannot be read.
    """
    specs = {"source": data.source, "validation": data.validation}
    return {
        key: _send_files(head, spec, base, progress)
        for key, spec in specs.items()
        if spec is not None and spec.startswith("files:")
    }


def _send_files(head: Connection, spec: str, base: Path, progress: Sent) -> str:
    files = parse_source(spec, base).files
    hashes = {file.name: sha256_of(file.path) for file in files}
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    key = hashlib.sha256(listing.encode()).hexdigest()[:KEY_LENGTH]
    total = sum(file.path.stat().st_size for file in files)
    folder, before = f".launch/text/{key}", 0
    with host_lock(head):  # two clients would append to one file
        for file in files:
            size = file.path.stat().st_size
            head.send(
                file.path,
                f"{folder}/{file.name}",
                sha256=hashes[file.name],
                on_bytes=partial(_report, progress, head.name, before, total),
            )
            before += size
    return f"files:~/{folder}/**/*"


def _report(progress: Sent, host: str, before: int, total: int, done: int) -> None:
    progress(host, "text", before + done, total)
