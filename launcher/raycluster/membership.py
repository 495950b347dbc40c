"""Which of a cluster's nodes a command goes on with: drained ones are left out, and where a run is
elastic those that do not answer too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.node import Node
from launcher.errors import HostError
from launcher.raycluster.control import read_spec
from launcher.raycluster.drain import list_drained, undrain
from launcher.raycluster.spec import ClusterSpec
from launcher.runs.node import RunNode
from launcher.ssh.protocol import Connection


@dataclass(frozen=True)
class Membership:
    """`nodes`: to go on with. `connections`: to those of them that answered; `unreached`: why
    there is none to the others."""

    nodes: tuple[Node, ...]
    connections: Mapping[str, Connection]
    unreached: Sequence[HostError]

    def only(self, names: Collection[str]) -> Membership:
        return Membership(
            tuple(node for node in self.nodes if node.name in names),
            {name: each for name, each in self.connections.items() if name in names},
            [error for error in self.unreached if error.host in names],
        )


def choose_members(
    loaded: LoadedCluster,
    everyone: Membership,
    *,
    elastic: bool,
    takes_back: bool,
    say: Callable[[str], None],
) -> Membership:
    """`everyone`: all nodes that there are. `takes_back`: nodes that were drained are so no more.
    What is left out is said. Without the head all stay, and an error is about to be raised."""
    cluster = loaded.cluster
    head = everyone.connections.get(cluster.head_node.name)
    if head is None:
        return everyone
    drained = list_drained(head, cluster.name)
    if takes_back:
        back = drained & set(everyone.connections)
        undrain(head, cluster.name, back)
        for name in sorted(back):
            say(f"{name} was drained: it is taken back")
        drained = set()
    names = {node.name for node in everyone.nodes}
    for name in sorted(drained & names):
        say(f"{name} is drained and left out: launch cluster up {loaded.cli_name}   takes it back")
    names -= drained
    if elastic:
        for error in everyone.unreached:
            if error.host in names:
                say(f"{error.message}: going on without it, the recipe is elastic")
                names.remove(error.host)
    return everyone.only(names)


def run_nodes(
    loaded: LoadedCluster, nodes: Sequence[Node], head: Connection, spec: ClusterSpec
) -> tuple[RunNode, ...]:
    """Of an elastic run: `spec` has those that are there, the others of `nodes` may come. They are
    described as they were seen last, else as the file does."""
    before = read_spec(head, spec.cluster)
    known = {node.name: node for node in (*(before.nodes if before else ()), *spec.nodes)}
    ordered = sorted(nodes, key=lambda node: node.name != loaded.cluster.head_node.name)
    return tuple(known.get(node.name) or RunNode.as_written(node) for node in ordered)
