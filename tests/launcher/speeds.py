"""Machines with round figures, for plans that can be worked out on paper."""

from __future__ import annotations

from typing import Any

from launcher.config.recipe import Recipe
from launcher.planner.calibration import Calibration
from launcher.planner.hardware import Hardware, Machine
from launcher.planner.measurement import HostSpeed, LinkSpeed, Measurement, WidthRates
from launcher.planner.run_plan import RunPlan, make_plan
from launcher.runs.node import RunNode

GIGA = 10**9
NODE_KEYS = ("accelerator", "ranks_per_node", "share")
D8 = Recipe(depth=8, sequence_length=1024, tokens_per_step=4096, steps=1000)
LINK = LinkSpeed(bytes_per_second=100e6, latency_seconds=0.0, cpu_seconds_per_byte=0.0)


def host_speed(gflops: float = 100.0, **changes: Any) -> HostSpeed:
    """All products at the same rate, 10 GB/s of memory, 8 GB of it."""
    rates = dict.fromkeys(WidthRates.model_fields, gflops * GIGA)
    known: dict[str, Any] = {
        "processor": "a CPU",
        "threads": 4,
        "thread_rates": {1: gflops * GIGA / 4, 4: gflops * GIGA},
        "why_threads": "4: its cores",
        "widths": {512: WidthRates(**rates)},
        "memory_bytes_per_second": 10 * GIGA,
        "adamw_bytes_per_second": 10 * GIGA,
        "disk_bytes_per_second": GIGA,
        "resident_bytes": 500_000_000,
        "memory_bytes": 8 * GIGA,
    }
    return HostSpeed(**(known | changes))


def machine(name: str, speed: HostSpeed, **changes: Any) -> Machine:
    """`changes`: of the machine, or of its node (accelerator, ranks_per_node, share)."""
    of_node = {key: changes.pop(key) for key in NODE_KEYS if key in changes}
    known: dict[str, Any] = {
        "has_explicit_share": "share" in of_node,
        "measured": True,
        "speed_source": "measured 2026-11-27",
        "memory_bytes": speed.memory_bytes,
        "disk_free_bytes": None,
        "watts": None,
    }
    node = RunNode(name=name, cpus=speed.threads, **of_node)
    return Machine(node=node, speed=speed, **(known | changes))


def hardware_of(*machines: Machine, link: LinkSpeed = LINK, name: str = "home") -> Hardware:
    names = [machine.name for machine in machines]
    pairs = {(one, other): link for i, one in enumerate(names) for other in names[i + 1 :]}
    return Hardware(name, machines, pairs, "measured 2026-11-27", True, None, f"--cluster {name}")


def measurement(**hosts: HostSpeed) -> Measurement:
    return Measurement(
        cluster="home",
        measured_at=0.0,
        device="cpu",
        dtype="float32",
        versions={"torch": "2.13.0"},
        hosts=hosts,
        links={},
    )


def one(**changes: Any) -> Hardware:
    return hardware_of(machine("one", host_speed(), **changes))


def two(gflops: float = 100.0, **link: float) -> Hardware:
    machines = (machine("one", host_speed()), machine("two", host_speed(gflops)))
    return hardware_of(*machines, link=LINK.model_copy(update=link))


def plan(recipe: Recipe, hardware: Hardware, others: dict[str, Hardware] | None = None) -> RunPlan:
    found = make_plan("d8", recipe, hardware, others or {}, Calibration([]))
    assert found is not None
    return found
