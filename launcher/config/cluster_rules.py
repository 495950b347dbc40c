"""What single values of a cluster file cannot show: keys that do not go together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from launcher.config.address import same_host
from launcher.config.validation import Rule, nearest_hint

if TYPE_CHECKING:
    from launcher.config.cluster import Cluster, Node

LOCAL = "local"  # this machine, without SSH: the cluster that has no nodes
SSH_PORT = 22
NEEDS = {"nccl": "cuda", "rccl": "rocm"}  # backend -> accelerator


def broken_rules(cluster: Cluster) -> Iterator[Rule]:
    yield from _broken_cluster_rules(cluster)
    yield from _broken_node_rules(cluster.nodes)
    yield from _broken_accelerator_rules(cluster)


def _broken_cluster_rules(cluster: Cluster) -> Iterator[Rule]:
    if cluster.name == LOCAL:
        for key in sorted(cluster.model_fields_set - {"name"}):
            if key != "nodes" or cluster.nodes:
                yield f"{key}: {LOCAL} is this machine, without SSH, and has no {key}", (key,)
    elif not cluster.nodes:
        yield "nodes: name at least one machine, as in - host: pc1", ("nodes",)
    names = [node.name for node in cluster.nodes]
    if cluster.nodes and cluster.head is not None and cluster.head not in names:
        hint = nearest_hint(cluster.head, names)
        yield f"head: no node is named {cluster.head!r}: {hint}", ("head",)


def _broken_node_rules(nodes: Sequence[Node]) -> Iterator[Rule]:
    names: set[str] = set()
    machines: dict[tuple[str, int], str] = {}
    for index, node in enumerate(nodes):
        at = f"nodes[{index}]"
        if node.name in names:
            message = f"{at}.name: another node is named {node.name!r} already"
            yield message, (f"{at}.name", f"{at}.host")
        names.add(node.name)
        first = machines.setdefault((same_host(node.host), node.port or SSH_PORT), node.name)
        if first != node.name:
            message = f"{at}.host: this machine is node {first!r} already: a machine is one node"
            yield message, (f"{at}.host",)
        for key in ("gpus", "gpu_model"):
            if node.accelerator == "cpu" and getattr(node, key) is not None:
                message = f"{at}.{key}: accelerator is cpu: write accelerator: cuda, or rocm"
                yield message, (f"{at}.{key}",)


def _broken_accelerator_rules(cluster: Cluster) -> Iterator[Rule]:
    vendors: dict[str, str] = {}
    for index, node in enumerate(cluster.nodes):
        if node.accelerator == "cpu":
            continue
        first = vendors.setdefault(node.pool, node.accelerator)
        if first != node.accelerator:
            message = (
                f"nodes[{index}].accelerator: {first} and {node.accelerator} in pool "
                f"{node.pool!r}: NCCL and RCCL ranks cannot share a group: give it another pool"
            )
            yield message, (f"nodes[{index}].accelerator",)
    needed = NEEDS.get(cluster.backend or "")
    unfit = [node.name for node in cluster.nodes if node.accelerator != needed]
    if needed and unfit:
        message = (
            f"backend: {cluster.backend} needs accelerator {needed}, which {', '.join(unfit)} "
            f"{'has' if len(unfit) == 1 else 'have'} not: leave backend out, and it will fit"
        )
        yield message, ("backend",)
