"""The machines of a plan: what each is, how fast, and how that is known."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from launcher.config.paths import launch_home
from launcher.hosts.local_gpus import find_local_gpus, local_torch_version
from launcher.planner.datasheets import (
    ASSUMED_CORES,
    WITHIN,
    assumed_link,
    estimate_cpu_speed,
    estimate_gpu_speed,
)
from launcher.planner.measurement import HostSpeed, LinkSpeed, Measurement
from nanochat.available_memory import available_bytes

if TYPE_CHECKING:
    from launcher.config.loaded_cluster import LoadedCluster
    from launcher.config.node import Node

GIGABYTE = 1_000_000_000


@dataclass(frozen=True)
class Machine:
    """One host of a plan. `ranks`: how many it takes. `memory_bytes`: of it, or of one of its GPUs;
    None where nobody has said it. `measured`: else `speed` is an estimate, and `known_from` says
    of what."""

    name: str
    accelerator: str
    ranks: int
    speed: HostSpeed
    measured: bool
    known_from: str
    memory_bytes: int | None
    disk_free_bytes: int | None
    share: float | None  # that its file writes
    watts: float | None

    @property
    def label(self) -> str:
        return self.name or "this machine"

    @property
    def device(self) -> str:
        return "cpu" if self.accelerator == "cpu" else "cuda"


@dataclass(frozen=True)
class Hardware:
    """Machines that can train together, and what lies between them: `links_measured`, all of it, or
    nothing is between hosts. `options`: that name them on a
    command line."""

    name: str
    machines: tuple[Machine, ...]
    links: Mapping[tuple[str, str], LinkSpeed]
    link_known_from: str
    links_measured: bool
    measurement: Measurement | None
    options: str

    @property
    def measured(self) -> bool:
        return all(machine.measured for machine in self.machines)

    def only(self, names: Sequence[str]) -> Hardware:
        return replace(self, machines=tuple(m for m in self.machines if m.name in names))

    def with_shares(self, shares: Mapping[str, float]) -> Hardware:
        """As if the cluster file wrote them."""
        machines = tuple(replace(each, share=shares[each.name]) for each in self.machines)
        return replace(self, machines=machines)

    def slowest_link(self) -> LinkSpeed | None:
        """Between two ranks; None where there is one."""
        pairs = [
            link
            for (one, other), link in self.links.items()
            if {one, other} <= {machine.name for machine in self.machines}
        ]
        within = [WITHIN[m.device] for m in self.machines if m.ranks > 1]
        return min([*pairs, *within], key=lambda link: link.bytes_per_second, default=None)


def local_hardware(measurement: Measurement | None, workers: int) -> Hardware:
    """`local`. What a torch for another device has measured does not count."""
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
        known = _when(measurement)
    elif gpu is not None:
        speed, known = estimate_gpu_speed(gpu.name, gpu.memory_bytes)
    else:
        speed, known = estimate_cpu_speed(cpus, None), f"estimated of its {_cores(cpus)}"
    if workers > 1 and not on_gpu:
        speed = _part_of(speed, workers, cpus)
    machine = Machine(
        name="",
        accelerator="cuda" if on_gpu else "cpu",
        ranks=workers,
        speed=speed,
        measured=measured,
        known_from=known,
        memory_bytes=speed.memory_bytes if on_gpu else available_bytes() or speed.memory_bytes,
        disk_free_bytes=shutil.disk_usage(_there()).free,
        share=None,
        watts=None,
    )
    return Hardware("local", (machine,), {}, "in its memory", True, measurement, "")


def cluster_hardware(
    loaded: LoadedCluster,
    pool: str | None,
    nodes: Sequence[Node],
    measurement: Measurement | None,
) -> Hardware:
    """`nodes`: of one accelerator. What was measured of another one does not count."""
    device = "cpu" if nodes[0].accelerator == "cpu" else "cuda"
    if measurement is not None and measurement.device != device:
        measurement = None
    machines = tuple(_machine(node, measurement) for node in nodes)
    network = loaded.cluster.network
    links, all_measured = {}, True
    known = _when(measurement) if measurement else ""
    for index, one in enumerate(nodes):
        for other in nodes[index + 1 :]:
            link = measurement.link(one.name, other.name) if measurement else None
            if link is None:
                all_measured = False
                link = assumed_link(network.profile, network.gbit_per_second)
                stated = network.gbit_per_second is not None
                known = "the cluster file says so" if stated else "assumed: nobody has measured it"
            links[one.name, other.name] = link
    if not links:
        known = "within the host, assumed"
    options = f"--cluster {loaded.cli_name}" + (f" --pool {pool}" if pool else "")
    return Hardware(loaded.cluster.name, machines, links, known, all_measured, measurement, options)


def _machine(node: Node, measurement: Measurement | None) -> Machine:
    speed = measurement.hosts.get(node.name) if measurement else None
    measured = speed is not None
    stated = None if node.memory_gb is None else round(node.memory_gb * GIGABYTE)
    gpu = node.accelerator != "cpu"
    if measurement is not None and speed is not None:
        known = _when(measurement)
    elif gpu:
        speed, known = estimate_gpu_speed(node.gpu_model, stated)
        known += "" if node.gpus else "; one GPU is assumed"
    else:
        cores = node.cpus or ASSUMED_CORES
        speed = estimate_cpu_speed(cores, stated)
        assumed = "" if node.cpus else ", which are assumed"
        known = f"estimated of {_cores(cores)}{assumed}"
    if not gpu and node.cpus is not None and node.cpus < speed.threads:
        speed = _with_threads(speed, node.cpus)
    return Machine(
        name=node.name,
        accelerator=node.accelerator,
        ranks=(node.gpus or 1) if gpu else 1,
        speed=speed,
        measured=measured,
        known_from=known,
        memory_bytes=stated or speed.memory_bytes,
        disk_free_bytes=speed.disk_free_bytes,
        share=node.explicit_share,
        watts=node.watts,
    )


def _part_of(speed: HostSpeed, workers: int, cpus: int) -> HostSpeed:
    """What one of several workers of a machine gets: its threads, and its part of the memory's
    bandwidth."""
    return _with_threads(speed, max(1, cpus // workers)).model_copy(
        update={
            "memory_bytes_per_second": speed.memory_bytes_per_second / workers,
            "adamw_bytes_per_second": speed.adamw_bytes_per_second / workers,
        }
    )


def _with_threads(speed: HostSpeed, threads: int) -> HostSpeed:
    """By the rate of the nearest number that was tried."""
    tried = min(speed.thread_rates, key=lambda count: abs(count - threads))
    best = speed.thread_rates[speed.threads]
    part = speed.thread_rates[tried] / best * threads / tried
    widths = {
        width: type(rates)(**{name: rate * part for name, rate in rates.model_dump().items()})
        for width, rates in speed.widths.items()
    }
    return speed.model_copy(update={"threads": threads, "widths": widths})


def _when(measurement: Measurement) -> str:
    return f"measured {measurement.day}"


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def _there() -> str:
    """The nearest folder to LAUNCH_HOME that exists."""
    home = launch_home()
    return str(next(folder for folder in (home, *home.parents) if folder.exists()))
