"""What a host has to know about its cluster: cluster.json, written by `launch cluster up`."""

from __future__ import annotations

import hashlib
import json

from launcher.raycluster.ports import Ports, cluster_ports
from launcher.runs.node import RunNode
from launcher.runs.record import Record

FORMAT = 1
KEY_LENGTH = 16
CODE_LABEL = "launch-code"  # of a node in Ray: the key of the code that its workers import
# In the cluster's folder on the head; touched by every client that connects.
CLIENT_SEEN_FILE = "wanted"


def cluster_folder(cluster: str) -> str:
    """On each of its hosts, below the home folder."""
    return f".launch/clusters/{cluster}"


def short_name(cluster: str) -> str:
    """For names of sockets, which may have 107 bytes: CLUSTER.POOL can have 65 of them."""
    return hashlib.sha256(cluster.encode()).hexdigest()[:8]


class ClusterSpec(Record):
    """The whole cluster as `node` sees it: cluster.json."""

    cluster: str
    node: str
    """The host that has this file."""
    nodes: tuple[RunNode, ...]
    """The head first, then in the order of the cluster file."""
    env: str
    """Key of the environment's folder under ~/.launch."""
    code: str
    """Key of the code's folder."""
    python: str | None
    """Key of the Python's folder; None: the host's own."""
    profile: str
    """Of the network, a key of `environment.HEALTH_CHECKS`."""
    idle_minutes: float

    @property
    def ports(self) -> Ports:
        return cluster_ports(self.cluster)

    @property
    def head(self) -> RunNode:
        return self.nodes[0]

    @property
    def this_node(self) -> RunNode:
        return next(node for node in self.nodes if node.name == self.node)

    @property
    def is_head(self) -> bool:
        return self.node == self.head.name

    @property
    def key(self) -> str:
        """Hash of all that a supervisor on `node` starts Ray with: another key means a restart."""
        own = self.this_node.model_dump(mode="json", by_alias=True, exclude={"share"})
        fields = self.model_dump(mode="json") | {"nodes": [own, self.head.address]}
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:KEY_LENGTH]

    def for_node(self, name: str, *, env: str, python: str | None) -> ClusterSpec:
        """Return what another host of the cluster is to know."""
        return self.model_copy(update={"node": name, "env": env, "python": python})

    def to_bytes(self) -> bytes:
        content = {"format": FORMAT, **self.as_json()}
        return json.dumps(content, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> ClusterSpec:
        """Raises ValueError if it is not of this format."""
        fields = json.loads(content)
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise ValueError("another format")
        return cls.model_validate(fields)
