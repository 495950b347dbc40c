"""Checkpoints of a cluster brought to this machine, verified by the hashes of their manifests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from launcher.errors import CommandFailed, LaunchError, RunFailed
from launcher.runs.remote import ClusterRuns, RemoteRun
from launcher.transport.connection import Connection

Sent = Callable[[str, str, int, int], None]  # host, what, bytes that came, bytes to come
MODEL, STATE, MANIFEST = "model.safetensors", "state.json", "manifest.json"


@dataclass(frozen=True)
class StoredCheckpoint:
    """One that a host has. `path`: on the host."""

    host: Connection
    path: str

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


def bring_home(
    runs: ClusterRuns, connections: Mapping[str, Connection], progress: Sent
) -> dict[str, str]:
    """The newest whole checkpoint of every run, from whichever host has it. Run -> its folder here.

    Runs without a checkpoint have their mirrors brought up to date. Raises LaunchError where a run
    has checkpoints and none of them is whole, HostError where a host goes.
    """
    brought = {}
    for name in runs.names():
        run = RemoteRun(runs, name)
        run.mirror.update(runs.head)
        found = stored_checkpoints(run, list(connections.values()))
        if not found:
            continue
        folder = fetch_newest(run, found, progress)
        if folder is None:
            raise LaunchError(
                f"no checkpoint of run '{name}' is whole: nothing was removed",
                fix=f"look at ~/{run.path}/checkpoints on the hosts, or give them up: "
                "add --discard-runs",
            )
        brought[name] = str(folder)
    return brought


def fetch_weights(run: RemoteRun) -> None:
    """Bring what the newest whole checkpoint on the head needs to speak, once.

    Raises RunFailed where there is none.
    """
    found = stored_checkpoints(run, [run.runs.head])
    if fetch_newest(run, found, lambda *_: None, names=(MODEL, STATE)) is None:
        raise RunFailed(
            f"run '{run.name}' has no whole checkpoint yet",
            fix=f"wait for one, or make one now: launch stop {run.cluster}/{run.name}",
        )
    run.folder.tokenizer.write_bytes(run.runs.head.read(f"{run.path}/tokenizer.json"))


def stored_checkpoints(run: RemoteRun, hosts: Sequence[Connection]) -> list[StoredCheckpoint]:
    """All there are, the newest first, of one step the head's first."""
    found = []
    for host in hosts:
        listed = host.run(f"ls {run.path}/checkpoints 2>/dev/null", step="list checkpoints").stdout
        for name in listed.split():
            if re.fullmatch(r"step-\d+", name):
                found.append(StoredCheckpoint(host, f"{run.path}/checkpoints/{name}"))
    order = list(hosts)
    return sorted(found, key=lambda each: (each.name, -order.index(each.host)), reverse=True)


def fetch_newest(
    run: RemoteRun,
    found: Sequence[StoredCheckpoint],
    progress: Sent,
    *,
    names: Sequence[str] | None = None,
) -> Path | None:
    """Into the mirror's folder of checkpoints; None where none is whole.

    names: the files that are wanted; by default all of the manifest.
    """
    for checkpoint in found:
        folder = run.folder.checkpoints / checkpoint.name
        if _fetch(checkpoint, folder, names, progress):
            return folder
    return None


def _fetch(
    checkpoint: StoredCheckpoint, folder: Path, names: Sequence[str] | None, progress: Sent
) -> bool:
    """False where it is torn. A file that is here already with the right hash is not fetched."""
    host = checkpoint.host
    try:
        manifest = host.read(f"{checkpoint.path}/{MANIFEST}")
        described = json.loads(manifest)["files"]
        wanted = {name: described[name] for name in names or described}
        total = sum(each["bytes"] for each in wanted.values())
        before = 0
        for name, each in wanted.items():
            host.fetch(
                f"{checkpoint.path}/{name}",
                folder / name,
                sha256=each["sha256"],
                on_bytes=partial(_report, progress, host.name, checkpoint.name, before, total),
            )
            before += each["bytes"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, CommandFailed):
        return False
    (folder / MANIFEST).write_bytes(manifest)
    return True


def _report(progress: Sent, host: str, what: str, before: int, total: int, done: int) -> None:
    progress(host, what, before + done, total)
