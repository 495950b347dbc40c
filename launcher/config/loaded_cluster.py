"""A cluster file that was read, and what a command requires of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.config.cluster import Cluster, no_nodes_error
from launcher.config.node import Node
from launcher.config.validation import nearest_hint
from launcher.config.yaml_source import Problem, YamlSource
from launcher.errors import ConfigError, InputError, NotFound

CHANGE_ME = "CHANGE-ME"  # how the hosts of shipped files begin


@dataclass(frozen=True)
class LoadedCluster:
    """A cluster with its origin."""

    name: str
    path: Path
    cluster: Cluster
    source: YamlSource
    cli_name: str
    """What names it on a command line: a name, a path or CLUSTER.POOL."""
    file_nodes: tuple[Node, ...]
    """All nodes of the file."""
    subcluster: str | None = None
    """The pool that it consists of; None: the cluster of the whole file."""

    @property
    def known_hosts(self) -> Path:
        """Its pinned host keys, which need not exist."""
        return self.path.with_name(f"{self.path.stem}.known_hosts")

    @property
    def explicit_shares(self) -> dict[str, float]:
        """Node -> its share, of those for which the file states one."""
        nodes = self.cluster.nodes
        return {n.name: n.explicit_share for n in nodes if n.explicit_share is not None}

    def error(self, key: str, message: str, *, fix: str | None = None) -> ConfigError:
        """For what turns out wrong later: points at the key (nodes[0].host)."""
        return self.source.error_at(key, message, fix=fix)


def require_addresses(loaded: LoadedCluster, nodes: Sequence[Node]) -> None:
    """Raises ConfigError for those whose host still is CHANGE-ME, InputError for no nodes."""
    if not nodes:
        raise no_nodes_error()
    problems = [
        Problem(loaded.source.position(key), f"{key}: write the address of your own machine here")
        for index, node in enumerate(loaded.file_nodes)
        if node in nodes and lacks_address(node)
        for key in [f"nodes[{index}].host"]
    ]
    if problems:
        raise loaded.source.error(*problems)


def lacks_address(node: Node) -> bool:
    """Whether it is as it was shipped."""
    return node.host.startswith(CHANGE_ME)


def require_pool(loaded: LoadedCluster, pool: str | None) -> tuple[Node, ...]:
    """Its nodes; all without a pool. Raises NotFound, or InputError for a cluster without nodes."""
    cluster = loaded.cluster
    if not cluster.nodes:
        raise no_nodes_error()
    if pool is not None and pool not in cluster.pools:
        raise _unknown_name(loaded, "pool", pool, cluster.pools)
    return cluster.nodes_in_pool(pool)


def require_trainable(loaded: LoadedCluster, pool: str | None) -> tuple[Node, ...]:
    """The nodes that a run of this pool trains on, all of one accelerator. Raises NotFound or
    InputError."""
    nodes, cluster = require_pool(loaded, pool), loaded.cluster
    if len({node.accelerator for node in nodes}) > 1:
        raise InputError(
            f"the hosts of {loaded.name} have different accelerators, which cannot train together",
            fix=f"say which: {' or '.join(f'--pool {name}' for name in cluster.pools)}",
        )
    return nodes


def require_node(loaded: LoadedCluster, name: str) -> Node:
    """Raises NotFound, or InputError for a cluster without nodes."""
    nodes = {node.name: node for node in require_pool(loaded, None)}
    if name not in nodes:
        raise _unknown_name(loaded, "node", name, tuple(nodes))
    return nodes[name]


def _unknown_name(loaded: LoadedCluster, kind: str, name: str, known: Sequence[str]) -> NotFound:
    message = f"cluster {loaded.name} has no {kind} {name!r}: {nearest_hint(name, known)}"
    return NotFound(message, fix=f"launch cluster show {loaded.cli_name}")
