"""climbmix for a head that cannot fetch it: fetched here, and sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from launcher.config.paths import launch_home
from launcher.config.recipe import DataSettings
from launcher.provision.client_lock import client_lock, named
from launcher.raycluster.control import ask_host
from launcher.raycluster.spec import ClusterSpec
from launcher.ssh.protocol import Connection, file_progress
from nanochat.dataset.climbmix import ADDRESS, CLIMBMIX, is_address
from nanochat.dataset.sources import climbmix_source
from nanochat.file_hash import FileHashes
from nanochat.progress import Progress

SHARDS = "launcher.agent.probe_shards"
SHARDS_THERE = f".launch/data/{CLIMBMIX}"


def upload_shards(
    head: Connection,
    spec: ClusterSpec,
    data: DataSettings,
    base: Path,
    progress: Progress,
    notify: Callable[[str], None],
) -> bool:
    """Whether all shards that `data` names are there now; else the head fetches them itself.

    Those of a mirror that is a folder are sent, for the head has no such folder, and replace what
    it has by these names, where that is something else. Raises HostError; DataError where a shard
    cannot be had here either.
    """
    address = data.mirror or ADDRESS
    source = climbmix_source(data.source, base, launch_home() / "data" / CLIMBMIX, data.mirror)
    missing = [*source.held_out, *source.files]
    if is_address(address):
        there = ask_host(head, spec, SHARDS, data.source, address)
        missing = [file for file in missing if file.name in there["missing"]]
        if missing and there["reaches"]:
            return False
    hashes = FileHashes(launch_home() / "data" / "file-hashes.json")

    def fetched(what: str, done: float, total: float | None, *, host: str = "") -> None:
        progress(what if total is None else f"fetching {CLIMBMIX}", done, total)

    source.fetch(missing, fetched)
    for number, shard in enumerate(missing, start=1):
        source.wait_for(shard)
        size = shard.path.stat().st_size
        report = file_progress(progress, head.name, f"shard {number} of {len(missing)}", 0, size)
        digest = hashes.sha256(shard.path)
        hashes.save()
        with client_lock(
            head, notify=named(head, notify)
        ):  # one at a time: others want to get on too
            head.send(shard.path, f"{SHARDS_THERE}/{shard.name}", sha256=digest, on_bytes=report)
    return True
