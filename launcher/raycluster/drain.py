"""Nodes that are to train no more until `launch cluster up`: a file for each, on the head.

`launch cluster drain` writes it, an elastic run looks for it twice a second.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from launcher.raycluster.spec import cluster_folder
from launcher.ssh.protocol import Connection

FOLDER = "drained"  # in the cluster's folder


def drained_nodes(folder: Path) -> set[str]:
    """On the head itself. `folder`: the cluster's."""
    return {path.name for path in (folder / FOLDER).glob("*")}


def list_drained(head: Connection, cluster: str) -> set[str]:
    listed = head.run(f"ls {_folder(cluster)} 2>/dev/null", step="list drained nodes")
    return set(listed.stdout.split())


def drain(head: Connection, cluster: str, node: str) -> None:
    """Again: nothing changes."""
    head.check(f"mkdir -p {_folder(cluster)}", step="drain a node")
    head.write(f"{_folder(cluster)}/{node}", b"")


def undrain(head: Connection, cluster: str, nodes: Collection[str]) -> None:
    if nodes:
        paths = " ".join(f"{_folder(cluster)}/{node}" for node in sorted(nodes))
        head.check(f"rm -f {paths}", step="take drained nodes back")


def _folder(cluster: str) -> str:
    return f"{cluster_folder(cluster)}/{FOLDER}"
