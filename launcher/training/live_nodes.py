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

ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class LiveNode:
    """`key`: of this life of the node in Ray; `slots`: how many ranks it takes; `place`: address
    and port of its raylet."""

    key: str
    slots: int
    place: tuple[str, int] = field(default=("", 0), compare=False)

    def answers(self) -> bool:
        """A group on a node that is about to be found gone is never placed, and none after it: Ray
        2.60 keeps what the other nodes have reserved for it."""
        try:
            socket.create_connection(self.place, timeout=ANSWER_SECONDS).close()
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
    waited_for: tuple[str, ...] = ()  # as it was told

    @property
    def slots(self) -> int:
        """Ranks of the group."""
        return sum(node.slots for node in self.members.values())

    def gather(self) -> bool:
        """Make those that are there the members of a new group; False where they are too few."""
        there = {name: node for name, node in self.there().items() if node.answers()}
        if there.keys() != set(self.names) and not (self.elastic and self.names[0] in there):
            self._tell_missing(tuple(name for name in self.names if name not in there))
            return False
        self.members, self.waited_for = there, ()
        return True

    def missing(self) -> set[str]:
        """Those that are neither there nor drained."""
        return set(self.names) - self.there().keys() - self._drained()

    def there(self) -> dict[str, LiveNode]:
        """Those that may train now, in rank order."""
        return live_nodes(ray.nodes(), self.names, self._drained())

    def lost(self) -> bool:
        """Whether a member is gone or has begun another life: its ranks are dead."""
        there = live_nodes(ray.nodes(), self.names, ())
        return any(there.get(name) != node for name, node in self.members.items())

    def should_change(self) -> bool:
        """Whether a group that can still save is to make way for another one."""
        return self.elastic and self.there() != self.members and not self.lost()

    def _drained(self) -> set[str]:
        return drained_nodes(self.folder.path.parents[1])

    def _tell_missing(self, missing: tuple[str, ...]) -> None:
        if missing != self.waited_for:
            self.waited_for = missing
            message = f"{self._state(missing)}: waiting; with elastic: true the run would go on"
            with EventLog(self.folder.events) as events:
                events.write(FaultEvent.now(what="node", message=message))

    def tell_change(self) -> None:
        """Where the group that begins is not of the nodes that the run's events tell of last."""
        before = last_members(self.folder, self.names)
        if before == tuple(self.members):
            return
        lost = [self._state([name]) for name in before if name not in self.members]
        come = [f"{name} is there" for name in self.members if name not in before]
        metrics = read_metrics(self.folder.metrics)
        with EventLog(self.folder.events) as events:
            events.write(
                ResizeEvent.now(
                    step=metrics[-1].step if metrics else 0,
                    before=before,
                    nodes=tuple(self.members),
                    why=", ".join([*lost, *come]),
                )
            )

    def _state(self, names: Collection[str]) -> str:
        what = "drained" if set(names) <= self._drained() else "not there"
        return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} {what}"


def live_nodes(
    known: Iterable[Mapping[str, Any]], names: Sequence[str], drained: Collection[str]
) -> dict[str, LiveNode]:
    """Of `names`, in their order, the head first. `known`: as ray.nodes() tells.

    Of a host that was switched off and on Ray may see both lives for a while, and which one is over
    is then not known. One that was off while the head got other code still has its old.
    """
    alive = [node for node in known if node["Alive"]]
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
