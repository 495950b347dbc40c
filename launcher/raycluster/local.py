"""A private Ray on this machine, for one run, of which nothing is left afterwards.

It has its own folder under /tmp, a token that nobody else knows and ports that it picks itself,
and is ended by process id (by `launcher.training.guardian`): other Rays on the machine are neither
used nor touched, and ~/.ray and /tmp/ray are not written to.
"""

from __future__ import annotations

import os
import secrets

DRIVER_PID = "LAUNCH_DRIVER_PID"
PRELOADED = "launcher.training.preload"
OBJECT_STORE_BYTES = 80 * 2**20  # nothing but Ray's own messages goes through it

# Variables by which a shell or another Ray could point ours at another cluster.
FOREIGN = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_NAMESPACE")

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Agents that would report to a dashboard that is not there.
    "RAY_enable_metrics_collection": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # Idle workers import torch and Ray Train while Ray starts; actors then begin in one of these
    # instead of one after the other in fresh ones (6 s less from Enter to the train function).
    "RAY_preload_python_modules": PRELOADED,
    "RAY_idle_worker_killing_time_threshold_ms": "86400000",
    # How soon the controller sees a dead worker or the end (default 2 s).
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    # A driver sees SIGTERM this soon while it waits for Ray (default 1,000 ms).
    "RAY_get_check_signal_interval_milliseconds": "100",
    # All ranks are here: no name service, VPN or missing cable can come between them.
    "GLOO_SOCKET_IFNAME": "lo",
    # Workers see the GPUs of the machine by CUDA's own rules.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # nanochat.memory: train functions run in threads, and only the first arena can keep blocks.
    "MALLOC_ARENA_MAX": "1",
}


def set_environment() -> None:
    """To be called before any thread of this process imports ray, which reads it once."""
    for name in FOREIGN:
        os.environ.pop(name, None)
    os.environ.update(ENVIRONMENT)
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ[DRIVER_PID] = str(os.getpid())


def start_local_ray(folder: str, *, slots: int) -> None:
    """Start Ray in `folder` (a short path) with room for `slots` workers, and connect to it.

    The guardian of the process that calls this ends it. The caller's SIGTERM handler stays: Ray's
    own raises SystemExit wherever the process is, and inside an import that is swallowed and
    leaves the module's lock taken for good (seen once in some 20 runs of a test).
    """
    import ray
    import ray._private.utils

    ray._private.utils.set_sigterm_handler = lambda handler: None
    ray.init(
        address="local",
        num_cpus=slots + 1,  # as many workers are started ahead and preloaded
        num_gpus=0,
        resources={"rank_slot": slots},
        include_dashboard=False,
        logging_level="warning",
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=folder,
    )
