"""What each shipped cluster renders to, from facts of such machines: packages, commands, Ray's
arguments and environment, kept in shipped_cases/. Nothing here ran on a GPU.

A change that is meant: `python tests/launcher/test_shipped_clusters.py` writes them anew.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_facts import captured
from test_gpus import gpus_of
from test_provision_host_plan import PYTHONS

from launcher.agent.supervisor import start_arguments
from launcher.config.cluster import Environment
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_trainable
from launcher.config.node import Node
from launcher.config.subcluster import select_pool
from launcher.hosts.cluster_addresses import ClusterAddress
from launcher.hosts.facts import HostFacts
from launcher.hosts.gpus import torch_build
from launcher.hosts.platform import Platform
from launcher.provision import requirements
from launcher.provision.code import CodeArchive
from launcher.provision.host_plan import HostEnvironment, WriteFile, plan_host
from launcher.provision.lockfile import Lockfile, Wheel
from launcher.provision.requirements import host_requirements, index_options
from launcher.raycluster.bring_up import node_specs
from launcher.raycluster.environment import node_environment

CASES = Path(__file__).with_name("shipped_cases")
LAUNCH = Path("/home/ada/.launch")
BARE = replace(captured("debian12"), ready={})
FACTS = {
    "cpu1": replace(BARE, cores=24, performance_cores=16, efficiency_cores=8,
                    gpus=gpus_of("rtx4070")),
    "cpu2": replace(BARE, cores=8),
    "rtx4070": replace(BARE, cores=16, gpus=gpus_of("rtx4070")),
    "mi300x": replace(BARE, cores=20, gpus=gpus_of("mi300x_vf")),
}  # fmt: skip
RUNS = [
    ("cpu2", None),
    ("rtx4070", None),
    ("mi300x", None),
    ("homelab", "cpu"),
    ("homelab", "rtx4070"),
    ("homelab", "mi300x"),
]


def rendered(name: str, pool: str | None) -> dict[str, Any]:
    """Node -> all that it would get."""
    loaded, pool = select_pool(load_cluster(name), pool)
    nodes = require_trainable(loaded, pool)
    needs = {node.name: need_of(node, FACTS[node.name]) for node in nodes}
    places = {
        node.name: ClusterAddress(f"192.168.1.{number}", "eno1", "a test")
        for number, node in enumerate(nodes, start=5)
    }
    facts = {node.name: FACTS[node.name] for node in nodes}
    specs = node_specs(loaded, nodes, facts, places, needs)
    return {
        node: {
            "packages": packages(needs[node].lockfile.target),
            "operations": [
                str(each) for each in plan_host(node, facts[node], needs[node]).operations
                if not isinstance(each, WriteFile)
            ],
            "ray": start_arguments(spec),
            "environment": node_environment(spec, LAUNCH, LAUNCH / "ray" / spec.cluster),
        }
        for node, spec in specs.items()
    }  # fmt: skip


def need_of(node: Node, host: HostFacts) -> HostEnvironment:
    build = torch_build(host.gpus) if node.accelerator == "cuda" else ""
    target = Platform(host.architecture, 11, node.accelerator, build)
    pip = Wheel("pip", "26.3", "pip-26.3-py3-none-any.whl", "https://index/pip.whl", "d" * 64)
    code = CodeArchive("code0", Path("/client/code/code0.tar.gz"), "a" * 64)
    return HostEnvironment(PYTHONS["own"], Lockfile("r", target, (pip,)), code)


def packages(target: Platform) -> list[str]:
    """torch, and where it comes from when nobody names an index."""
    torch = [line for line in host_requirements(target) if line.startswith("torch")]
    return [*torch, *index_options(Environment(), target)]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_HOME", "/client")
    monkeypatch.setattr(requirements, "pip_configures_index", lambda: False)  # as on most machines


@pytest.mark.parametrize(("name", "pool"), RUNS)
def test_a_shipped_cluster(name: str, pool: str | None) -> None:
    assert rendered(name, pool) == json.loads(file_of(name, pool).read_text())


def file_of(name: str, pool: str | None) -> Path:
    return CASES / f"{name}{f'.{pool}' if pool else ''}.json"


if __name__ == "__main__":
    requirements.pip_configures_index = lambda: False
    CASES.mkdir(exist_ok=True)
    for run in RUNS:
        file_of(*run).write_text(json.dumps(rendered(*run), indent=1) + "\n")
