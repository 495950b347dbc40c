"""climbmix for a head that cannot fetch it: fetched here, and sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from launcher.config.paths import launch_home
from launcher.config.recipe import Data
from launcher.provision.host_lock import host_lock
from launcher.raycluster.control import ask_host
from launcher.raycluster.spec import ClusterSpec
from launcher.transport.connection import Connection, Progress, part_of
from nanochat.dataset.climbmix import ADDRESS, CLIMBMIX, is_address
from nanochat.dataset.hashes import FileHashes
from nanochat.dataset.sources import climbmix_source

REACHED = "launcher.runs.reached"
SHARDS_THERE = f".launch/data/{CLIMBMIX}"


def send_shards(
    head: Connection,
    spec: ClusterSpec,
    data: Data,
    base: Path,
    progress: Progress,
    waiting: Callable[[], None],
) -> bool:
    """Whether all shards that `data` names are there now; else the head fetches them itself.

    Those of a mirror that is a folder are sent, for the head has no such folder. Raises HostError;
    DataError where a shard cannot be had here either.
    """
    address = data.mirror or ADDRESS
    source = climbmix_source(data.source, base, launch_home() / "data" / CLIMBMIX, data.mirror)
    there = ask_host(head, spec, REACHED, data.source, address if is_address(address) else ADDRESS)
    if not there["missing"]:
        return True
    if there["reaches"] and is_address(address):
        return False
    hashes = FileHashes(launch_home() / "data" / "file-hashes.json")
    shards = {file.name: file for file in (*source.held_out, *source.files)}
    missing = [shards[name] for name in there["missing"]]

    def fetched(stage: str, done: float, total: float | None) -> None:
        progress("this machine", f"fetching {CLIMBMIX}", int(done), int(total or done))

    source.fetch(missing, fetched)
    with host_lock(head, waiting=waiting):
        for number, shard in enumerate(missing, start=1):
            source.wait_for(shard)
            size = shard.path.stat().st_size
            report = part_of(progress, head.name, f"shard {number} of {len(missing)}", 0, size)
            digest = hashes.sha256(shard.path)
            head.send(shard.path, f"{SHARDS_THERE}/{shard.name}", sha256=digest, on_bytes=report)
    hashes.save()
    return True
