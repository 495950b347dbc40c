"""What a host has to know about its cluster: cluster.json, written by `launch cluster up`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from launcher.raycluster.ports import Ports, cluster_ports

FORMAT = 1
KEY_LENGTH = 16
CODE_LABEL = "launch-code"  # of a node in Ray: the key of the code that its workers import
WANTED = "wanted"  # in the cluster's folder on the head: touched by every client that comes


def cluster_folder(cluster: str) -> str:
    """On each of its hosts, below the home folder."""
    return f".launch/clusters/{cluster}"


def short_name(cluster: str) -> str:
    """For names of sockets, which may have 107 bytes: CLUSTER.POOL can have 65 of them."""
    return hashlib.sha256(cluster.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class NodeSpec:
    """One host. `address` is its own in the cluster's network, `slots` how many ranks it takes, one
    for each GPU or one for all its cores, `share` the weight of the rows that they take together.
    `accelerator`: cpu, cuda or rocm."""

    name: str
    address: str
    interface: str
    cpus: int
    slots: int
    pool: str
    share: float = 1.0
    accelerator: str = "cpu"


@dataclass(frozen=True)
class ClusterSpec:
    """The whole cluster as `node` sees it. `nodes`: the head first, then the file's order.

    `env`, `code` and `python` are the keys of the folders under ~/.launch that it runs from.
    """

    cluster: str
    node: str
    nodes: tuple[NodeSpec, ...]
    env: str
    code: str
    python: str | None
    profile: str
    idle_minutes: float

    @property
    def ports(self) -> Ports:
        return cluster_ports(self.cluster)

    @property
    def head(self) -> NodeSpec:
        return self.nodes[0]

    @property
    def here(self) -> NodeSpec:
        return next(node for node in self.nodes if node.name == self.node)

    @property
    def is_head(self) -> bool:
        return self.node == self.head.name

    @property
    def key(self) -> str:
        """Of all that a supervisor on `node` starts Ray with: with another key it starts anew."""
        here = {key: value for key, value in asdict(self.here).items() if key != "share"}
        fields = asdict(self) | {"nodes": [here, self.head.address]}
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:KEY_LENGTH]

    def to_json(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes) -> ClusterSpec:
        """Raises ValueError, KeyError or TypeError where it is not of this format."""
        fields: dict[str, Any] = json.loads(content)
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        nodes = tuple(NodeSpec(**node) for node in fields.pop("nodes"))
        return cls(**fields, nodes=nodes)
