"""One node of a cluster as its runs see it: share, ranks, cores and accelerator."""

from __future__ import annotations

from pydantic import Field

from launcher.runs.record import Record


class RunNode(Record):
    """A host that takes part in a run. Part of run.json and of the hosts' cluster.json."""

    name: str
    """The node's name in the cluster file; "" is this machine."""
    address: str = ""
    """Its own in the cluster's network."""
    interface: str = ""
    """The network interface with that address."""
    cpus: int
    """Cores that all its ranks together may use."""
    ranks_per_node: int = Field(default=1, validation_alias="slots", serialization_alias="slots")
    """One for each GPU, or one for all its cores. Written as `slots`, its name until 2026-11."""
    pool: str = "default"
    share: float = 1.0
    """Weight of the rows that its ranks take together."""
    accelerator: str = "cpu"
    """cpu, cuda or rocm."""

    @property
    def cpus_per_rank(self) -> int:
        return max(1, self.cpus // self.ranks_per_node)
