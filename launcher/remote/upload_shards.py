"""climbmix for a head that cannot fetch it: fetched here, and sent."""

from __future__ import annotations

from pathlib import Path

from launcher.config.paths import launch_home
from launcher.config.recipe import DataSettings
from launcher.provision.client_lock import client_lock, named
from launcher.raycluster.control import ask_host
from launcher.raycluster.observer import Notify
from launcher.raycluster.spec import ClusterSpec
from launcher.ssh.protocol import Connection, file_progress
from nanochat.dataset.climbmix import ADDRESS, CLIMBMIX, is_address
from nanochat.dataset.sources import climbmix_source
from nanochat.file_hash import FileHashes
from nanochat.progress import Progress

PROBE_MODULE = "launcher.agent.probe_shards"
REMOTE_SHARDS = f".launch/data/{CLIMBMIX}"


def upload_shards(
    head: Connection,
    spec: ClusterSpec,
    data: DataSettings,
    base: Path,
    progress: Progress,
    notify: Notify,
) -> bool:
    """Return whether the head has all shards that `data` names now; if not, it fetches them itself.

    Those of a mirror that is a folder are sent, for the head has no such folder, and replace what
    it has by these names, where that is something else. Raises HostError; DataError where a shard
    cannot be had here either.
    """
    address = data.mirror or ADDRESS
    source = climbmix_source(data.source, base, launch_home() / "data" / CLIMBMIX, data.mirror)
    missing = [*source.held_out, *source.files]
    if is_address(address):
        remote = ask_host(head, spec, PROBE_MODULE, data.source, address)
        missing = [file for file in missing if file.name in remote["missing"]]
        if missing and remote["reaches"]:
            return False
    hashes = FileHashes(launch_home() / "data" / "file-hashes.json")

    def show_fetch(what: str, done: float, total: float | None, *, host: str = "") -> None:
        progress(what if total is None else f"fetching {CLIMBMIX}", done, total)

    source.fetch(missing, show_fetch)
    for number, shard in enumerate(missing, start=1):
        source.wait_for(shard)
        size = shard.path.stat().st_size
        report = file_progress(progress, head.name, f"shard {number} of {len(missing)}", 0, size)
        digest = hashes.sha256(shard.path)
        hashes.save()
        # A lock for each shard, so that other clients get their turn in between.
        with client_lock(head, notify=named(head, notify)):
            head.send(shard.path, f"{REMOTE_SHARDS}/{shard.name}", sha256=digest, on_bytes=report)
    return True
