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


def newest_resumable(folder: RunFolder) -> Path | None:
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
    without one is not there.

    Raises HostError, also where a file is not what its manifest says: the run would begin anew.
    """
    described = json.loads((checkpoint / MANIFEST).read_bytes())["files"]
    hashes = {checkpoint / name: described[name]["sha256"] for name in (MODEL, OPTIMIZER, STATE)}
    records = [folder.path / name for name in RECORDS if (folder.path / name).exists()]
    hashes |= {local: sha256_of(local) for local in (checkpoint / MANIFEST, *records)}
    total, done = sum(local.stat().st_size for local in hashes), 0
    for local, digest in hashes.items():
        report = part_of(progress, head.name, f"run {folder.name}", done, total)
        there = f"{path}/{local.relative_to(folder.path).as_posix()}"
        head.send(local, there, sha256=digest, on_bytes=report)
        done += local.stat().st_size
    head.write(f"{path}/run.json", json.dumps(folder.spec() | dict(changes), indent=1).encode())
