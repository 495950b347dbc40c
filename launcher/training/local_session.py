"""A private Ray on this machine, for one run, of which nothing is left afterwards.

It has its own folder under /tmp, a token that nobody else knows and ports that it picks itself.
`launcher.training.driver_reaper` ends it by process id: other Rays on the machine are neither used
nor touched, and nothing is written to ~/.ray and /tmp/ray.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from launcher.raycluster.environment import (
    COMMON_ENVIRONMENT,
    DRIVER_PID_VARIABLE,
    FOREIGN_VARIABLES,
)
from launcher.runs.failure import Failure
from launcher.runs.node import RunNode

OBJECT_STORE_BYTES = 80 * 2**20  # nothing but Ray's own messages goes through it

ENVIRONMENT = {
    **COMMON_ENVIRONMENT,
    # Agents that would report to a dashboard that is not there.
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    # All ranks are here: no name service, VPN or missing cable can come between them.
    "GLOO_SOCKET_IFNAME": "lo",
}


class LocalSession:
    """A Ray in `folder` (a short path) with room for `workers`.

    The driver reaper of the process that starts it ends it.
    """

    export_metrics = False
    trains_in_process = True
    profile = "lan"

    def __init__(self, folder: str, *, workers: int) -> None:
        self.storage_path = folder
        cpus = len(os.sched_getaffinity(0))
        self.nodes: Sequence[RunNode] = [RunNode(name="", cpus=cpus, ranks_per_node=workers)]
        self._workers = workers
        self.accelerator: str | None = None
        self.resources = {"rank_slot": 1.0}

    def set_environment(self) -> None:
        for name in FOREIGN_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(ENVIRONMENT)
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        os.environ[DRIVER_PID_VARIABLE] = str(os.getpid())

    def connect(self) -> None:
        """Start it. The caller's SIGTERM handler stays: Ray's own raises SystemExit wherever the
        process is, and inside an import that is swallowed and leaves the module's lock taken for
        good (seen once in some 20 runs of a test)."""
        import ray
        import ray._private.utils

        ray._private.utils.set_sigterm_handler = lambda handler: None
        ray.init(
            address="local",
            num_cpus=self._workers + 1,  # as many workers are started ahead and preloaded
            num_gpus=0,
            resources={"rank_slot": self._workers},
            include_dashboard=False,
            logging_level="warning",
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=self.storage_path,
        )

    def acquire_hosts(
        self, run: str, on_wait: Callable[[str], None], is_cancelled: Callable[[], bool]
    ) -> AbstractContextManager[None]:
        return nullcontext()  # this Ray is the run's own

    def train_run(self, run_folder: str) -> Failure | None:
        from launcher.training.trainer import train_run

        return train_run(run_folder, self)
