"""The TCP ports of a cluster, from its name: two clusters may share a host, a firewall knows them.

Every Ray process of a host listens on a fixed port of one block of 60 below 32768, where Linux
begins to hand out ephemeral ports. The process group of a run (gloo, NCCL) still uses ephemeral
ones: torch cannot pin them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

FIRST_PORT = 20_000
BLOCK_PORTS = 60
BLOCKS = 212  # the last ends at 32,719
WORKER_PORTS = 48  # one per Ray worker process on a host; a run needs two, and one per rank


@dataclass(frozen=True)
class Ports:
    """Ports of every host of a cluster; those of the head are free on the others."""

    base: int

    @property
    def gcs(self) -> int:
        """The head's own: where hosts join."""
        return self.base

    @property
    def dashboard(self) -> int:
        """The head's own, on its loopback."""
        return self.base + 1

    @property
    def dashboard_metrics(self) -> int:
        """The head's own."""
        return self.base + 2

    @property
    def ray_client(self) -> int:
        """The head's own. Nothing of ours uses it, but `ray start` has no way to leave it out."""
        return self.base + 3

    @property
    def node_manager(self) -> int:
        return self.base + 4

    @property
    def object_manager(self) -> int:
        return self.base + 5

    @property
    def agent_grpc(self) -> int:
        return self.base + 6

    @property
    def agent_http(self) -> int:
        return self.base + 7

    @property
    def runtime_env_agent(self) -> int:
        return self.base + 8

    @property
    def metrics(self) -> int:
        """Prometheus text of the host: Ray's gauges and ours."""
        return self.base + 9

    @property
    def workers(self) -> range:
        return range(self.base + 10, self.base + 10 + WORKER_PORTS)

    def reachable_ports(self, *, head: bool) -> tuple[int, ...]:
        """What other hosts connect to, one worker port for all of them."""
        common = (self.node_manager, self.object_manager, self.agent_grpc, self.workers[0])
        return (self.gcs, *common) if head else common

    def listening_ports(self, *, head: bool) -> tuple[int, ...]:
        """What has to be free on a host before Ray starts there."""
        own = (self.gcs, self.dashboard, self.dashboard_metrics, self.ray_client) if head else ()
        return (
            *own,
            self.node_manager, self.object_manager, self.agent_grpc, self.agent_http,
            self.runtime_env_agent, self.metrics, *self.workers,
        )  # fmt: skip


def cluster_ports(cluster: str) -> Ports:
    """The same for every client, for they follow from the name alone."""
    digest = hashlib.sha256(cluster.encode()).digest()
    return Ports(FIRST_PORT + int.from_bytes(digest[:4], "big") % BLOCKS * BLOCK_PORTS)
