"""What `launch cluster check` and `up` found the hosts of a cluster to be, kept for plans.

LAUNCH_HOME/clusters/CLUSTER/hosts.json on the client:

    {"pc1": {"host": "pc1.lan", "seen_at": 1764434321.5, "cores": 4, "memory_bytes": 16e9, ...}}
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.node import Node
from launcher.config.paths import launch_home
from launcher.hosts.facts import HostFacts
from launcher.hosts.gpu_preflight import VENDOR_BY_ACCELERATOR
from launcher.runs.record import Count, Record, Timestamp, read_json, write_json
from nanochat.lock import LockHeld, hold_lock


class FoundHost(Record):
    """One host as it was seen last."""

    host: str
    """Its address in the cluster file then: another one is another machine."""
    seen_at: Timestamp
    """Seconds since 1970."""
    cores: int = Field(ge=1, le=2**20)
    memory_bytes: Count | None = None
    """Of the machine."""
    memory_available_bytes: Count | None = None
    disk_free_bytes: Count | None = None
    gpus: Count = 0
    """GPUs of the node's accelerator."""
    gpu_model: str | None = None
    gpu_memory_bytes: Count | None = None
    """Of one GPU."""

    @property
    def day(self) -> str:
        return f"{datetime.fromtimestamp(self.seen_at):%Y-%m-%d}"


def save_inventory(loaded: LoadedCluster, facts: Mapping[str, HostFacts]) -> None:
    """Keep what these hosts were found to be, beside what is known of the others.

    Not if the disk is full or LAUNCH_HOME cannot be written: whoever looked at the hosts has what
    it needs, and `launch plan` says that its figures are estimates.
    """
    found = {
        node.name: _found_host(node, facts[node.name])
        for node in loaded.cluster.nodes
        if node.name in facts
    }
    file = _file(loaded)
    with contextlib.suppress(OSError, LockHeld):
        file.parent.mkdir(parents=True, exist_ok=True)
        with hold_lock(file.with_name("hosts.lock")):
            known = read_json(file) or {}
            write_json(file, known | {name: host.as_json() for name, host in found.items()})


def _found_host(node: Node, host: HostFacts) -> FoundHost:
    vendor = VENDOR_BY_ACCELERATOR.get(node.accelerator)
    gpus = [] if vendor is None else host.gpus.of_vendor(vendor)
    return FoundHost(
        host=node.host,
        seen_at=round(time.time(), 3),
        cores=host.cores,
        memory_bytes=host.memory_bytes,
        memory_available_bytes=host.memory_available_bytes,
        disk_free_bytes=host.disk_free_bytes,
        gpus=len(gpus),
        gpu_model=gpus[0].name if gpus else None,
        gpu_memory_bytes=gpus[0].memory_bytes if gpus else None,
    )


def load_inventory(loaded: LoadedCluster) -> dict[str, FoundHost]:
    """Node -> what its host was found to be; without those that nobody has looked at."""
    inventory: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        inventory = read_json(_file(loaded)) or {}
    found = {node.name: FoundHost.parse(inventory.get(node.name)) for node in loaded.cluster.nodes}
    hosts = {node.name: node.host for node in loaded.cluster.nodes}
    return {
        name: host for name, host in found.items() if host is not None and host.host == hosts[name]
    }


def _file(loaded: LoadedCluster) -> Path:
    """One for all pools of a cluster file."""
    name = loaded.cluster.name
    if loaded.subcluster is not None:
        name = name.removesuffix(f".{loaded.subcluster}")
    return launch_home() / "clusters" / name / "hosts.json"
