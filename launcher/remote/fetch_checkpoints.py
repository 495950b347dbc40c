"""Checkpoints of a cluster brought to this machine, verified by the hashes of their manifests."""

from __future__ import annotations

import json
import math
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.config.paths import launch_home
from launcher.errors import CommandFailed, InputError, LaunchError, RunFailed
from launcher.raycluster.spec import cluster_folder
from launcher.remote.cluster_runs import ClusterRuns, RemoteRun, run_names
from launcher.ssh.protocol import Connection, file_progress
from nanochat.atomic_write import write_atomically
from nanochat.lock import hold_lock
from nanochat.progress import Progress, no_progress

MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.safetensors", "state.json"
MAX_LISTINGS = 3  # a run at work removes older checkpoints while they are being fetched
MANIFEST_FILE, TOKENIZER_FILE = "manifest.json", "tokenizer.json"


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint that a host has."""

    host: Connection
    path: str
    """On the host."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def label(self) -> str:
        """Its run and its name, for people."""
        return f"run {self.path.split('/')[-3]}, {self.name}"


def fetch_newest_checkpoints(
    runs: ClusterRuns, connections: Mapping[str, Connection], progress: Progress
) -> dict[str, str]:
    """The newest whole checkpoint of every run, from whichever host has it. Run -> its folder here.

    Runs without a checkpoint have their mirrors brought up to date. Raises LaunchError where a run
    has checkpoints and none of them is whole, or no host has its record or its tokenizer;
    HostError where a host goes.
    """
    hosts = list(connections.values())
    cluster = runs.spec.cluster
    _require_separate_folder(hosts, cluster)
    fetched = {}
    # A head that has lost its disk does not know the runs of which others have copies, and one
    # that has just been made the head not those of the one before.
    for name in dict.fromkeys(name for host in hosts for name in run_names(host, cluster)):
        run = RemoteRun(runs, name)
        for host in hosts:
            run.mirror.update(host)
        stored = stored_checkpoints(run, hosts)
        if not stored:
            continue
        if not run.folder.exists():
            raise LaunchError(
                f"no host has the run.json of run '{name}': nothing was removed",
                fix="without it the checkpoint cannot speak; give the run up: add --discard-runs",
            )
        folder = fetch_newest_checkpoint(run, stored, progress)
        if folder is None:
            raise LaunchError(
                f"no checkpoint of run '{name}' is whole: nothing was removed",
                fix=f"look at ~/{run.path}/checkpoints on the hosts, or give them up: "
                "add --discard-runs",
            )
        write_atomically(run.folder.tokenizer, _read_tokenizer(run, hosts))
        if (summary := run.folder.summary()) is not None:
            local = summary.model_copy(update={"checkpoint": str(folder)})
            local.write(run.folder.summary_file)
        fetched[name] = str(folder)
    return fetched


def _require_separate_folder(hosts: Sequence[Connection], cluster: str) -> None:
    """Raises InputError where this machine is one of the hosts and keeps what it brings home in
    the very folder that is going to be removed."""
    probe = launch_home() / "clusters" / cluster / f"probe-{secrets.token_hex(8)}"
    probe.parent.mkdir(parents=True, exist_ok=True)
    probe.touch()
    try:
        for host in hosts:
            exists_command = f"[ -e {cluster_folder(cluster)}/{probe.name} ]"
            if host.run(exists_command, step="compare folders").status == 0:
                raise InputError(
                    f"LAUNCH_HOME is {launch_home()}, the folder of host {host.name} that is to "
                    "be removed",
                    fix="choose another folder of this machine: LAUNCH_HOME=~/launch launch ...",
                )
    finally:
        probe.unlink()


def _read_tokenizer(run: RemoteRun, hosts: Sequence[Connection]) -> bytes:
    """From the run's folder on the head, else from its rows on any host."""
    spec = run.folder.find_spec()
    rows = Path(spec.data.folder).name if spec and spec.data else "-"
    for host in hosts:
        for folder in (run.path, f".launch/data/prepared/{rows}"):
            try:
                return host.read(f"{folder}/{TOKENIZER_FILE}")
            except FileNotFoundError:
                continue
    raise LaunchError(
        f"no host has the tokenizer of run '{run.name}': nothing was removed",
        fix="without it the checkpoint cannot speak; give the run up: add --discard-runs",
    )


def fetch_weights(run: RemoteRun) -> None:
    """Bring what the newest whole checkpoint on the head needs to speak, once; older ones go.

    Raises RunFailed where there is none.
    """
    folder = None
    for _ in range(MAX_LISTINGS):
        stored = stored_checkpoints(run, [run.runs.head])
        folder = fetch_newest_checkpoint(run, stored, no_progress, names=(MODEL_FILE, STATE_FILE))
        if folder is not None or not stored:
            break
    if folder is None:
        raise RunFailed(
            f"run '{run.name}' has no whole checkpoint yet",
            fix=f"wait for one, or make one now: launch stop {run.cluster}/{run.name}",
        )
    for old in run.folder.checkpoints.glob("step-*"):
        # With its optimizer's state a run can resume from it.
        if old != folder and not (old / OPTIMIZER_FILE).exists():
            shutil.rmtree(old)
    write_atomically(run.folder.tokenizer, _read_tokenizer(run, [run.runs.head]))


def stored_checkpoints(run: RemoteRun, hosts: Sequence[Connection]) -> list[StoredCheckpoint]:
    """All there are, the newest first, of one step the head's first."""
    stored = []
    for host in hosts:
        listed = host.run(f"ls {run.path}/checkpoints 2>/dev/null", step="list checkpoints").stdout
        for name in listed.split():
            if re.fullmatch(r"step-\d+", name):
                stored.append(StoredCheckpoint(host, f"{run.path}/checkpoints/{name}"))
    order = list(hosts)
    return sorted(stored, key=lambda item: (item.name, -order.index(item.host)), reverse=True)


def fetch_newest_checkpoint(
    run: RemoteRun,
    stored: Sequence[StoredCheckpoint],
    progress: Progress,
    *,
    names: Sequence[str] = (MODEL_FILE, OPTIMIZER_FILE, STATE_FILE),
) -> Path | None:
    """These files, into the mirror's folder of checkpoints; None where none is whole."""
    run.folder.checkpoints.mkdir(parents=True, exist_ok=True)
    # Two commands would write to one file.
    with hold_lock(run.folder.checkpoints / "fetch.lock", seconds=math.inf):
        for checkpoint in stored:
            folder = run.folder.checkpoints / checkpoint.name
            if _fetch(checkpoint, folder, names, progress):
                return folder
    return None


def _fetch(
    checkpoint: StoredCheckpoint, folder: Path, names: Sequence[str], progress: Progress
) -> bool:
    """False where it is torn. A file that is here already with the right hash is not fetched."""
    host = checkpoint.host
    try:
        manifest = host.read(f"{checkpoint.path}/{MANIFEST_FILE}")
        files = json.loads(manifest)["files"]
        entries = {name: files[name] for name in names}  # never what a host chooses
        total_bytes = sum(entry["bytes"] for entry in entries.values())
        fetched_bytes = 0
        for name, entry in entries.items():
            report = file_progress(
                progress, host.name, checkpoint.label, fetched_bytes, total_bytes
            )
            path = f"{checkpoint.path}/{name}"
            host.fetch(path, folder / name, sha256=entry["sha256"], on_bytes=report)
            fetched_bytes += entry["bytes"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, CommandFailed):
        return False
    write_atomically(folder / MANIFEST_FILE, manifest)
    return True
