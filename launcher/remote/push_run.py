"""A run goes on on a head that lacks its record: what the head needs for that. It was brought home
and purged there, or its cluster has another head now, or the head another disk."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import InputError
from launcher.remote.cluster_runs import RemoteRun
from launcher.remote.fetch_checkpoints import (
    MANIFEST_FILE,
    MODEL_FILE,
    OPTIMIZER_FILE,
    STATE_FILE,
    TOKENIZER_FILE,
    stored_checkpoints,
)
from launcher.runs.folder import RunFolder
from launcher.runs.state import last_saved_step
from launcher.ssh.protocol import Connection, file_progress
from nanochat.file_hash import sha256_of
from nanochat.progress import Progress

RECORD_FILES = ("metrics.jsonl", "events.jsonl", "log.txt", TOKENIZER_FILE)


def newest_resumable(folder: RunFolder) -> Path | None:
    """The newest checkpoint here from which a run can go on."""
    for path in sorted(folder.checkpoints.glob("step-*"), reverse=True):
        if re.fullmatch(r"step-\d+", path.name) and (path / OPTIMIZER_FILE).exists():
            return path
    return None


def find_record(run: RemoteRun, hosts: Sequence[Connection]) -> Path | None:
    """Bring the run's record here from the host that has it, if any. The checkpoint of this machine
    that is to be sent too; None where a host has a newer one, and the ranks will find it.

    Raises NotFound where nobody has a record, InputError where nobody has a checkpoint any more.
    """
    for host in hosts:
        run.mirror.update(host)
    if not run.folder.exists():
        run.runs.find(run.name)
    remote, local = stored_checkpoints(run, hosts), newest_resumable(run.folder)
    if not remote and local is None and (step := last_saved_step(run.folder)):
        nodes = ", ".join(node.name for node in run.folder.spec().nodes)
        raise InputError(
            f"run '{run.name}' was saved at step {step:,} on {nodes}, and no host of cluster "
            f"{run.cluster} has any of its checkpoints",
            fix="bring a node that has one back into the cluster file, or begin a new run",
        )
    return local if local is not None and (not remote or local.name > remote[0].name) else None


def push_run(
    head: Connection,
    folder: RunFolder,
    checkpoint: Path | None,
    path: str,
    changes: Mapping[str, Any],
    progress: Progress,
) -> None:
    """Into the run's folder on the head, `path`: the record, and the checkpoint. `changes`: of
    run.json, which goes last: a run without one is not there.

    Raises HostError, also where a file is not what its manifest says: the run would begin anew.
    """
    hashes = {}
    if checkpoint is not None:
        files = json.loads((checkpoint / MANIFEST_FILE).read_bytes())["files"]
        names = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE)
        hashes = {checkpoint / name: files[name]["sha256"] for name in names}
        hashes[checkpoint / MANIFEST_FILE] = sha256_of(checkpoint / MANIFEST_FILE)
    records = [folder.path / name for name in RECORD_FILES if (folder.path / name).exists()]
    hashes |= {local: sha256_of(local) for local in records}
    total_bytes, done_bytes = sum(local.stat().st_size for local in hashes), 0
    for local, digest in hashes.items():
        report = file_progress(progress, head.name, f"run {folder.name}", done_bytes, total_bytes)
        remote = f"{path}/{local.relative_to(folder.path).as_posix()}"
        head.send(local, remote, sha256=digest, on_bytes=report)
        done_bytes += local.stat().st_size
    head.write(f"{path}/run.json", folder.changed_spec(**changes))
