"""torch's process group, with ranks in the order of the cluster file.

Ray numbers workers anew whenever a host comes back, and rows, sums and files follow ranks. So the
ranks of a run's process group are ours: by the node's place in the file (the head is first and
leads), then by the GPU. `torch.distributed.get_rank()` is the rank; Ray's world rank is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ray
from ray.train._internal.utils import get_address_and_port
from ray.train.torch.config import TorchConfig, _setup_torch_process_group, _TorchBackend
from ray.train.v2._internal.execution.worker_group import WorkerGroup

NODE_NAME_VARIABLE = "LAUNCH_NODE"


@dataclass
class RankedTorchConfig(TorchConfig):
    """`nodes`: names in rank order."""

    nodes: tuple[str, ...] = ()

    @property
    def backend_cls(self) -> type[RankedBackend]:
        return RankedBackend


class RankedBackend(_TorchBackend):
    def on_start(self, worker_group: WorkerGroup, backend_config: RankedTorchConfig) -> None:
        names = [worker.metadata.node for worker in worker_group.get_workers()]
        order = rank_order(names, backend_config.nodes)
        address, port = worker_group.execute_single(order[0], get_address_and_port)
        ray.get(
            [
                worker_group.execute_single_async(
                    worker,
                    _setup_torch_process_group,
                    backend=backend_config.backend,
                    world_rank=rank,
                    world_size=len(names),
                    init_method=f"tcp://{address}:{port}",
                    timeout_s=backend_config.timeout_s,
                )
                for rank, worker in enumerate(order)
            ]
        )

    def on_shutdown(self, worker_group: WorkerGroup, backend_config: RankedTorchConfig) -> None:
        """A group that ends is killed: closing one in which a rank has died takes seconds."""


def rank_order(names: Sequence[str], nodes: Sequence[str]) -> list[int]:
    """Of workers on the nodes `names`: which of them is rank 0, 1, ... `nodes`: in rank order."""
    return sorted(range(len(names)), key=lambda i: (nodes.index(names[i]), i))
