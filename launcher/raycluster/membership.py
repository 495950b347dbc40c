"""Which of a cluster's nodes a command goes on with: drained ones are left out, and where a run is
elastic those that do not answer too."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.node import Node
from launcher.errors import HostError
from launcher.raycluster.control import read_spec
from launcher.raycluster.drain import list_drained, undrain
from launcher.raycluster.observer import Notify
from launcher.raycluster.spec import ClusterSpec
from launcher.runs.node import RunNode
from launcher.ssh.protocol import Connection


@dataclass(frozen=True)
class Membership:
    """The nodes of a cluster that a command works with."""

    nodes: tuple[Node, ...]
    connections: Mapping[str, Connection]
    """To the nodes that answered."""
    unreached: Sequence[HostError]
    """Why there is no connection to the others."""

    def only(self, names: Collection[str]) -> Membership:
        return Membership(
            tuple(node for node in self.nodes if node.name in names),
            {name: connection for name, connection in self.connections.items() if name in names},
            [error for error in self.unreached if error.host in names],
        )


def choose_members(
    loaded: LoadedCluster,
    candidates: Membership,
    *,
    elastic: bool,
    undrain_nodes: bool,
    notify: Notify,
) -> Membership:
    """Leave out drained nodes, and in an elastic run those that do not answer.

    `undrain_nodes`: undrain the drained ones that answer instead. `notify` is called for every node
    that is left out or undrained. If the head does not answer, all candidates stay: an error is
    about to be raised.
    """
    cluster = loaded.cluster
    head = candidates.connections.get(cluster.head_node.name)
    if head is None:
        return candidates
    drained = list_drained(head, cluster.name)
    if undrain_nodes:
        undrained = drained & set(candidates.connections)
        undrain(head, cluster.name, undrained)
        for name in sorted(undrained):
            notify(f"{name} was drained: it is taken back")
        drained = set()
    names = {node.name for node in candidates.nodes}
    for name in sorted(drained & names):
        notify(
            f"{name} is drained and left out: launch cluster up {loaded.cli_name}   takes it back"
        )
    names -= drained
    if elastic:
        for error in candidates.unreached:
            if error.host in names:
                notify(f"{error.message}: going on without it, the recipe is elastic")
                names.remove(error.host)
    return candidates.only(names)


def run_nodes(
    loaded: LoadedCluster, nodes: Sequence[Node], head: Connection, spec: ClusterSpec
) -> tuple[RunNode, ...]:
    """Of an elastic run: `spec` has those that are there, the others of `nodes` may come. They are
    described as they were seen last, else as the file does."""
    previous = read_spec(head, spec.cluster)
    last_seen = {node.name: node for node in (*(previous.nodes if previous else ()), *spec.nodes)}
    ordered = sorted(nodes, key=lambda node: node.name != loaded.cluster.head_node.name)
    return tuple(last_seen.get(node.name) or RunNode.as_written(node) for node in ordered)
