"""One node of a cluster as its runs see it: share, ranks, cores and accelerator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from launcher.runs.record import Record

if TYPE_CHECKING:
    from launcher.config.node import Node


class RunNode(Record):
    """A host that takes part in a run. Part of run.json and of the hosts' cluster.json."""

    name: str
    """The node's name in the cluster file; "" is this machine."""
    address: str = ""
    """Its own in the cluster's network."""
    interface: str = ""
    """The network interface with that address."""
    cpus: int | None = None
    """Cores that all its ranks together may use; None: all, whose number is not known yet."""
    ranks_per_node: int = Field(default=1, validation_alias="slots", serialization_alias="slots")
    """One for each GPU, or one for all its cores. Written as `slots`, its name until 2026-11."""
    pool: str = "default"
    share: float = 1.0
    """Weight of the rows that its ranks take together."""
    accelerator: str = "cpu"
    """cpu, cuda or rocm."""

    @property
    def cpus_per_rank(self) -> int:
        """One if the number is not known."""
        return max(1, (self.cpus or 1) // self.ranks_per_node)

    @classmethod
    def as_written(cls, node: Node) -> RunNode:
        """Return what the cluster file says of a node that nobody has looked at."""
        return cls(
            name=node.name,
            cpus=node.cpus,
            ranks_per_node=node.gpus or 1,
            pool=node.pool,
            share=node.share,
            accelerator=node.accelerator,
        )
