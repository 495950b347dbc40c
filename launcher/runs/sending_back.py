"""A run that was brought home goes on on its cluster: what the head needs for that."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.runs.folder import RunFolder
from launcher.runs.homecoming import MANIFEST, MODEL, OPTIMIZER, STATE, TOKENIZER
from launcher.transport.connection import Connection, Progress, part_of
from nanochat.storage import sha256_of

RECORDS = ("metrics.jsonl", "events.jsonl", "log.txt", TOKENIZER)


def newest_whole(folder: RunFolder) -> Path | None:
    """The newest checkpoint here from which a run can go on."""
    for path in sorted(folder.checkpoints.glob("step-*"), reverse=True):
        if re.fullmatch(r"step-\d+", path.name) and (path / OPTIMIZER).exists():
            return path
    return None


def send_back(
    head: Connection,
    folder: RunFolder,
    checkpoint: Path,
    path: str,
    changes: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Into the run's folder on the head, `path`. `changes`: of run.json, which goes last: a run
    without one is not there. Raises HostError."""
    files = [(checkpoint / name, f"checkpoints/{checkpoint.name}/{name}") for name in
             (MODEL, OPTIMIZER, STATE, MANIFEST)]  # fmt: skip
    files += [(folder.path / name, name) for name in RECORDS if (folder.path / name).exists()]
    total, done = sum(local.stat().st_size for local, _ in files), 0
    for local, name in files:
        report = part_of(progress, head.name, f"run {folder.name}", done, total)
        head.send(local, f"{path}/{name}", sha256=sha256_of(local), on_bytes=report)
        done += local.stat().st_size
    head.write(f"{path}/run.json", json.dumps(folder.spec() | dict(changes), indent=1).encode())
