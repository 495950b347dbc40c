"""The environment variables that Ray's processes get, on this machine and on a cluster's hosts."""

from __future__ import annotations

from pathlib import Path

from launcher.raycluster.spec import ClusterSpec
from launcher.runs.node import RunNode

PRELOAD_MODULE = "launcher.training.worker_preload"
# In the environment of every process that a supervisor has started: its cluster's folder.
CLUSTER_VARIABLE = "LAUNCH_CLUSTER_FOLDER"
DRIVER_PID_VARIABLE = "LAUNCH_DRIVER_PID"  # whose end ends the workers of a private Ray
JOB_VARIABLE = "LAUNCH_JOB"  # in the environment of the process in which Ray runs a job's command

# Variables by which a shell or another Ray could point ours at another cluster.
FOREIGN_VARIABLES = (
    "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_NAMESPACE",
)  # fmt: skip

# What hides GPUs from processes. ROCR_ is never set: with it alone Ray gives up (ray#51104), and
# together with HIP_ it counts among the GPUs that HIP_ has left.
GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")

COMMON_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_event_stats": "0",
    # Idle workers import torch and Ray Train ahead; actors then begin in one of these instead of
    # one after the other in fresh ones (6 s less from Enter to the train function).
    "RAY_preload_python_modules": PRELOAD_MODULE,
    "RAY_idle_worker_killing_time_threshold_ms": "86400000",
    # How soon the controller sees a dead worker or the end (default 2 s).
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_WARN_BLOCKING_GET_INSIDE_ASYNC": "0",
    # A driver sees SIGTERM this soon while it waits for Ray (default 1,000 ms).
    "RAY_get_check_signal_interval_milliseconds": "100",
    # Training is what the machine is for: at Ray's niceness of 15 its own agents went before it.
    "RAY_worker_niceness": "0",
    # Workers see the GPUs of the machine by CUDA's own rules.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # nanochat.memory: train functions run in threads, and only the first arena can keep blocks.
    "MALLOC_ARENA_MAX": "1",
}

# How long the head waits for a host that has gone silent: checks every `period`, each of which
# may take `timeout`, and `threshold` of them in a row have to fail (Ray: 3 s, 10 s, 5). lan: a
# lost host is noticed after 11 to 12 s. A cable that was out for 5 s costs two checks: TCP tries
# again 6.2 s after the first packet that was lost. wifi: after 65 s.
HEALTH_CHECKS = {
    "lan": {"period_ms": "1000", "timeout_ms": "3000", "failure_threshold": "3"},
    "wifi": {"period_ms": "3000", "timeout_ms": "10000", "failure_threshold": "5"},
}

# A call to a host that has gone silent ends with its connection, and the head makes no room for
# another group meanwhile: TCP gives up after this long (Ray: 120 s, which gRPC makes its
# TCP_USER_TIMEOUT). More than a cable that was out for 5 s needs.
TCP_TIMEOUT_MS = {"lan": "15000", "wifi": "65000"}


def visible_gpus(node: RunNode) -> dict[str, str]:
    """The first GPUs, one for each rank; on a CPU node none: it computes in float32 as the others
    do, whatever card is in it. All ranks of a host see all of them and take their own by number."""
    if node.accelerator == "cpu":
        return {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}
    numbers = ",".join(map(str, range(node.ranks_per_node)))
    return {
        "CUDA_VISIBLE_DEVICES" if node.accelerator == "cuda" else "HIP_VISIBLE_DEVICES": numbers
    }


def node_environment(spec: ClusterSpec, home: Path, ray_folder: Path) -> dict[str, str]:
    """What Ray is started with on `spec.node`, and its workers inherit. `home`: ~/.launch."""
    node = spec.this_node
    checks = HEALTH_CHECKS[spec.profile]
    health = {f"RAY_health_check_{key}": value for key, value in checks.items()}
    return {
        **COMMON_ENVIRONMENT,
        **health,
        "RAY_grpc_client_keepalive_timeout_ms": TCP_TIMEOUT_MS[spec.profile],
        "RAY_AUTH_TOKEN_PATH": str(home / "clusters" / spec.cluster / "token"),
        "RAY_TMPDIR": str(ray_folder),  # else /tmp/ray gets a file about the newest cluster
        "TMPDIR": str(ray_folder),  # processes that are killed leave folders there
        # Hosts of one minor version of Python may be of several patch levels.
        "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
        "RAY_GRAFANA_HOST": "DISABLED",
        # The supervisor keeps idle workers (`WorkerPool`); Ray would start more of them while a run
        # begins, which took its core from it for 6 s.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "DASHBOARD_METRIC_PORT": str(spec.ports.dashboard_metrics),
        # One concrete name each: gloo would bind to what the host name resolves to, 127.0.1.1.
        "GLOO_SOCKET_IFNAME": node.interface,
        "NCCL_SOCKET_IFNAME": node.interface,
        "OMP_NUM_THREADS": str(node.cpus_per_rank),
        **visible_gpus(node),
        CLUSTER_VARIABLE: str(home / "clusters" / spec.cluster),
        "LAUNCH_HOME": str(home),
        "LAUNCH_NODE": node.name,
        "PYTHONPATH": str(home / "code" / spec.code),
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
    }
