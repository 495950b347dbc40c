"""The nodes of a run that are there, and those that its ranks are on."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from launcher.raycluster.drain import drained_nodes
from launcher.raycluster.spec import CODE_LABEL
from launcher.runs.events import EventLog, FaultEvent, ResizeEvent
from launcher.runs.folder import RunFolder
from launcher.runs.metric import read_metrics
from launcher.runs.state import last_members

CONNECT_TIMEOUT_SECONDS = 2.0


@dataclass(frozen=True)
class LiveNode:
    """A node that is up in Ray."""

    node_id: str
    """Ray's id, another one after each start of the node."""
    ranks: int
    """How many ranks it takes."""
    address: tuple[str, int] = field(default=("", 0), compare=False)
    """Address and port of its raylet."""

    def answers(self) -> bool:
        """A group on a node that is about to be found gone is never placed, and none after it: Ray
        2.60 keeps what the other nodes have reserved for it."""
        try:
            socket.create_connection(self.address, timeout=CONNECT_TIMEOUT_SECONDS).close()
        except OSError:
            return False
        return True


@dataclass
class RunNodes:
    """As seen from the head, by the process that forms a run's groups.

    `names`: in rank order, the head first. `elastic`: the head and any others will do. `members`:
    of the group that trains or has trained last.
    """

    folder: RunFolder
    names: tuple[str, ...]
    elastic: bool
    members: dict[str, LiveNode] = field(default_factory=dict)
    reported_missing: tuple[str, ...] = ()  # those of the last fault event about them

    @property
    def world_size(self) -> int:
        """Ranks of the group."""
        return sum(node.ranks for node in self.members.values())

    def select_members(self) -> bool:
        """Make the available nodes the members of a new group. False if they are too few."""
        available = {name: node for name, node in self.available().items() if node.answers()}
        if available.keys() != set(self.names) and not (
            self.elastic and self.names[0] in available
        ):
            self._write_missing(tuple(name for name in self.names if name not in available))
            return False
        self.members, self.reported_missing = available, ()
        return True

    def missing(self) -> set[str]:
        """Nodes that are neither available nor drained."""
        return set(self.names) - self.available().keys() - self._drained()

    def available(self) -> dict[str, LiveNode]:
        """Nodes that may train now, in rank order."""
        return live_nodes(ray.nodes(), self.names, self._drained())

    def has_lost_member(self) -> bool:
        """Whether a member is gone or was started again: its ranks are dead."""
        available = live_nodes(ray.nodes(), self.names, ())
        return any(available.get(name) != node for name, node in self.members.items())

    def should_regroup(self) -> bool:
        """Whether a group that can still save is to make way for another one."""
        return self.elastic and self.available() != self.members and not self.has_lost_member()

    def _drained(self) -> set[str]:
        return drained_nodes(self.folder.path.parents[1])

    def _write_missing(self, missing: tuple[str, ...]) -> None:
        if missing != self.reported_missing:
            self.reported_missing = missing
            message = f"{self._describe(missing)}: waiting; with elastic: true the run would go on"
            with EventLog(self.folder.events) as events:
                events.write(FaultEvent.now(what="node", message=message))

    def write_resize(self) -> None:
        """Write an event if this group's nodes differ from those of the last event about them."""
        before = last_members(self.folder, self.names)
        if before == tuple(self.members):
            return
        lost = [self._describe([name]) for name in before if name not in self.members]
        joined = [f"{name} is there" for name in self.members if name not in before]
        metrics = read_metrics(self.folder.metrics)
        with EventLog(self.folder.events) as events:
            events.write(
                ResizeEvent.now(
                    step=metrics[-1].step if metrics else 0,
                    before=before,
                    nodes=tuple(self.members),
                    why=", ".join([*lost, *joined]),
                )
            )

    def _describe(self, names: Collection[str]) -> str:
        what = "drained" if set(names) <= self._drained() else "not there"
        return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {what}"


def live_nodes(
    ray_nodes: Iterable[Mapping[str, Any]], names: Sequence[str], drained: Collection[str]
) -> dict[str, LiveNode]:
    """Return those of `names` that may train, in their order, the head first.

    `ray_nodes`: what ray.nodes() returns. After a host was switched off and on, Ray may list both
    its lives for a while, and which one is over is not known then: it is left out. A host that was
    off while the head got new code still runs the old: it is left out too.
    """
    alive = [node for node in ray_nodes if node["Alive"]]
    lives = Counter(node["NodeName"] for node in alive)
    code = {node["NodeName"]: node["Labels"].get(CODE_LABEL) for node in alive}
    found = {
        node["NodeName"]: LiveNode(
            node["NodeID"],
            int(node["Resources"]["rank_slot"]),
            (node.get("NodeManagerAddress", ""), node.get("NodeManagerPort", 0)),
        )
        for node in alive
        if lives[node["NodeName"]] == 1 and "rank_slot" in node["Resources"]
    }
    return {
        name: found[name]
        for name in names
        if name in found and name not in drained and code[name] == code.get(names[0])
    }
