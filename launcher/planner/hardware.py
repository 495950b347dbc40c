"""The machines of a plan: what each is, how fast it is, and where its speed comes from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from launcher.config.cluster import LOCAL
from launcher.config.cluster_hosts import ClusterHosts
from launcher.config.loaded_cluster import LoadedCluster, require_trainable
from launcher.config.node import Node
from launcher.config.paths import launch_home
from launcher.config.subcluster import select_pool
from launcher.errors import InputError
from launcher.hosts.local_gpus import find_local_gpus, local_torch_version
from launcher.planner.datasheets import (
    ASSUMED_CORES,
    INTRA_HOST_LINKS,
    assumed_link,
    estimate_cpu_speed,
    estimate_gpu_speed,
)
from launcher.planner.measurement import HostSpeed, LinkSpeed, Measurement, load_measurement
from launcher.raycluster.inventory import FoundHost, load_inventory
from launcher.runs.node import RunNode
from nanochat.available_memory import available_bytes
from nanochat.disk_space import free_bytes

GIGABYTE = 1_000_000_000


@dataclass(frozen=True)
class Machine:
    """One host of a plan."""

    node: RunNode
    """Its name, ranks, cores, accelerator and share."""
    has_explicit_share: bool
    """Whether the cluster file states its share."""
    speed: HostSpeed
    measured: bool
    """False if `speed` is an estimate."""
    speed_source: str
    """Where `speed` comes from, for people."""
    memory_bytes: int | None
    """Memory of the host, or of one of its GPUs; None if it is unknown."""
    disk_free_bytes: int | None
    watts: float | None

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def accelerator(self) -> str:
        return self.node.accelerator

    @property
    def ranks(self) -> int:
        return self.node.ranks_per_node

    @property
    def label(self) -> str:
        return self.name or "this machine"

    @property
    def device(self) -> str:
        return "cpu" if self.accelerator == "cpu" else "cuda"


@dataclass(frozen=True)
class Hardware:
    """Machines that can train together, and the links between them."""

    name: str
    machines: tuple[Machine, ...]
    links: Mapping[tuple[str, str], LinkSpeed]
    link_source: str
    """Where the speed of the links comes from, for people."""
    links_measured: bool
    """True if every link was measured, or if there is a single host."""
    measurement: Measurement | None
    options: str
    """The options of a command line that select it."""

    @property
    def measured(self) -> bool:
        return all(machine.measured for machine in self.machines)

    def only(self, names: Sequence[str]) -> Hardware:
        return replace(self, machines=tuple(m for m in self.machines if m.name in names))

    def with_shares(self, shares: Mapping[str, float]) -> Hardware:
        """Return the same hardware as if its cluster file stated these shares."""
        machines = tuple(
            replace(
                machine,
                node=machine.node.model_copy(update={"share": shares[machine.name]}),
                has_explicit_share=True,
            )
            for machine in self.machines
        )
        return replace(self, machines=machines)

    def slowest_link(self) -> LinkSpeed | None:
        """Return the slowest link between two ranks; None if there is a single rank."""
        pairs = [
            link
            for (one, other), link in self.links.items()
            if {one, other} <= {machine.name for machine in self.machines}
        ]
        within_hosts = [INTRA_HOST_LINKS[m.device] for m in self.machines if m.ranks > 1]
        return min([*pairs, *within_hosts], key=lambda link: link.bytes_per_second, default=None)


def find_hardware(hosts: ClusterHosts | None, workers: int) -> tuple[Hardware, dict[str, Hardware]]:
    """Return the selected machines, and the file's other pools by the option that selects them.

    `hosts`: None is this machine, with so many `workers`.
    """
    if hosts is None:
        return local_hardware(load_measurement(LOCAL), workers), {}
    selected = _hardware_of(hosts.loaded, hosts.pool, hosts.nodes)
    others = {}
    if hosts.file.subcluster is None:
        names = {node.name for node in hosts.nodes}
        for name in hosts.file.cluster.pools:
            if not names & {node.name for node in hosts.file.cluster.nodes_in_pool(name)}:
                with contextlib.suppress(InputError):  # hosts that cannot train together
                    loaded, pool = select_pool(hosts.file, name)
                    nodes = require_trainable(loaded, pool)
                    others[f"--pool {name}"] = _hardware_of(loaded, pool, nodes)
    return selected, others


def _hardware_of(loaded: LoadedCluster, pool: str | None, nodes: Sequence[Node]) -> Hardware:
    return cluster_hardware(loaded, pool, nodes, load_measurement(loaded.cluster.name))


def local_hardware(measurement: Measurement | None, workers: int) -> Hardware:
    """Describe this machine. A measurement by a torch for another device does not count."""
    gpu = None
    if measurement is None or measurement.versions.get("torch") != local_torch_version():
        gpu = next(iter(find_local_gpus().gpus), None)
        if measurement is not None and measurement.device != ("cuda" if gpu else "cpu"):
            measurement = None
    speed = measurement.hosts.get("") if measurement else None
    measured = speed is not None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpus = cores or 1
    on_gpu = measurement.device == "cuda" if measurement else gpu is not None
    if measurement is not None and speed is not None:
        source = _measured_on(measurement)
    elif gpu is not None:
        speed, source = estimate_gpu_speed(gpu.name, gpu.memory_bytes)
    else:
        speed, source = estimate_cpu_speed(cpus, None), f"estimated of its {_format_cores(cpus)}"
    if workers > 1 and not on_gpu:
        speed = _speed_per_worker(speed, workers, cpus)
    machine = Machine(
        node=RunNode(
            name="",
            cpus=cpus,
            ranks_per_node=workers,
            accelerator="cuda" if on_gpu else "cpu",
        ),
        has_explicit_share=False,
        speed=speed,
        measured=measured,
        speed_source=source,
        memory_bytes=speed.memory_bytes if on_gpu else available_bytes() or speed.memory_bytes,
        disk_free_bytes=free_bytes(_existing_folder()),
        watts=None,
    )
    return Hardware("local", (machine,), {}, "in its memory", True, measurement, "")


def cluster_hardware(
    loaded: LoadedCluster,
    pool: str | None,
    nodes: Sequence[Node],
    measurement: Measurement | None,
) -> Hardware:
    """Describe a cluster's hosts. `nodes`: all with the same accelerator. A measurement of another
    accelerator does not count."""
    device = "cpu" if nodes[0].accelerator == "cpu" else "cuda"
    if measurement is not None and measurement.device != device:
        measurement = None
    found = load_inventory(loaded)
    machines = tuple(_machine(node, measurement, found.get(node.name)) for node in nodes)
    network = loaded.cluster.network
    links, all_measured = {}, True
    link_source = _measured_on(measurement) if measurement else ""
    for index, one in enumerate(nodes):
        for other in nodes[index + 1 :]:
            link = measurement.link(one.name, other.name) if measurement else None
            if link is None:
                all_measured = False
                link = assumed_link(network.profile, network.gbit_per_second)
                link_source = (
                    "assumed: nobody has measured it"
                    if network.gbit_per_second is None
                    else "the cluster file says so"
                )
            links[one.name, other.name] = link
    if not links:
        link_source = "within the host, assumed"
    options = f"--cluster {loaded.cli_name}" + (f" --pool {pool}" if pool else "")
    return Hardware(
        loaded.cluster.name, machines, links, link_source, all_measured, measurement, options
    )


def _machine(node: Node, measurement: Measurement | None, found: FoundHost | None) -> Machine:
    """`found`: what the host was seen to be, if anybody has looked."""
    speed = measurement.hosts.get(node.name) if measurement else None
    measured = speed is not None
    on_gpu = node.accelerator != "cpu"
    memory = _memory_bytes(node, found)
    if measurement is not None and speed is not None:
        source = _measured_on(measurement)
    elif on_gpu:
        speed, source = _estimate_gpu(node, found, memory)
    else:
        speed, source = _estimate_cpu(node, found, memory)
    if not on_gpu and node.cpus is not None and node.cpus < speed.threads:
        speed = _with_threads(speed, node.cpus)
    run_node = RunNode.as_written(node)
    if on_gpu and node.gpus is None and found is not None:
        run_node = run_node.model_copy(update={"ranks_per_node": max(1, found.gpus)})
    return Machine(
        node=run_node,
        has_explicit_share=node.explicit_share is not None,
        speed=speed,
        measured=measured,
        speed_source=source,
        memory_bytes=memory or speed.memory_bytes,
        disk_free_bytes=speed.disk_free_bytes or (found.disk_free_bytes if found else None),
        watts=node.watts,
    )


def _memory_bytes(node: Node, found: FoundHost | None) -> int | None:
    """Of the machine, or of one GPU: as the cluster file states it, else as it was found."""
    if node.memory_gb is not None:
        return round(node.memory_gb * GIGABYTE)
    if found is None:
        return None
    return found.memory_bytes if node.accelerator == "cpu" else found.gpu_memory_bytes


def _estimate_cpu(
    node: Node, found: FoundHost | None, memory_bytes: int | None
) -> tuple[HostSpeed, str]:
    if found is not None:
        cores = min(node.cpus or found.cores, found.cores)
        basis = f", found on {found.day}"
    else:
        cores, basis = node.cpus or ASSUMED_CORES, "" if node.cpus else ", which are assumed"
    speed = estimate_cpu_speed(cores, memory_bytes)
    return speed, f"estimated of {_format_cores(cores)}{basis}"


def _estimate_gpu(
    node: Node, found: FoundHost | None, memory_bytes: int | None
) -> tuple[HostSpeed, str]:
    model = node.gpu_model or (found.gpu_model if found else None)
    speed, source = estimate_gpu_speed(model, memory_bytes)
    if node.gpus is None and (found is None or not found.gpus):
        source += "; one GPU is assumed"
    return speed, source


def _speed_per_worker(speed: HostSpeed, workers: int, cpus: int) -> HostSpeed:
    """Divide a machine's threads and memory bandwidth among its workers."""
    return _with_threads(speed, max(1, cpus // workers)).model_copy(
        update={
            "memory_bytes_per_second": speed.memory_bytes_per_second / workers,
            "adamw_bytes_per_second": speed.adamw_bytes_per_second / workers,
        }
    )


def _with_threads(speed: HostSpeed, threads: int) -> HostSpeed:
    """Scale the rates by that of the nearest number of threads that was tried."""
    tried = min(speed.thread_rates, key=lambda count: abs(count - threads))
    best = speed.thread_rates[speed.threads]
    factor = speed.thread_rates[tried] / best * threads / tried
    widths = {
        width: type(rates)(**{name: rate * factor for name, rate in rates.model_dump().items()})
        for width, rates in speed.widths.items()
    }
    return speed.model_copy(update={"threads": threads, "widths": widths})


def _measured_on(measurement: Measurement) -> str:
    return f"measured {measurement.day}"


def _format_cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def _existing_folder() -> Path:
    """Return the nearest folder to LAUNCH_HOME that exists."""
    home = launch_home()
    return next(folder for folder in (home, *home.parents) if folder.exists())
