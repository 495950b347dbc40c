"""GPU nodes of the shipped clusters: what is rendered for them from such machines' facts. Nothing
here ran on one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_facts import captured
from test_gpus import gpus_of
from test_provision_host_plan import PYTHONS, TARGET

from launcher.agent.supervisor import start_arguments
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import LoadedCluster, require_trainable
from launcher.config.node import Node
from launcher.errors import InputError
from launcher.hosts.cluster_addresses import ClusterAddress
from launcher.hosts.facts import HostFacts
from launcher.provision.code import CodeArchive
from launcher.provision.host_plan import HostEnvironment
from launcher.provision.lockfile import Lockfile
from launcher.raycluster.bring_up import node_specs
from launcher.raycluster.control import HostState
from launcher.raycluster.environment import node_environment
from launcher.raycluster.probe import cluster_requirements
from launcher.raycluster.spec import ClusterSpec

CPU = captured("debian12")
NEED = HostEnvironment(
    PYTHONS["own"], Lockfile("r", TARGET, ()), CodeArchive("c1", Path("code.tar.gz"), "00")
)
BOXES = {"rtx4070": "rtx4070", "mi300x": "mi300x_vf"}


def spec_of(
    loaded: LoadedCluster, nodes: tuple[Node, ...], facts: dict[str, HostFacts]
) -> dict[str, ClusterSpec]:
    places = {node.name: ClusterAddress("192.168.1.5", "eno1", "a test") for node in nodes}
    return node_specs(loaded, nodes, facts, places, {node.name: NEED for node in nodes})


def environment(spec: ClusterSpec) -> dict[str, str]:
    launch = Path("/home/ada/.launch")
    return node_environment(spec, launch, launch / "ray" / spec.cluster)


@pytest.mark.parametrize(
    ("cluster", "visible"),
    [
        ("rtx4070", {"CUDA_VISIBLE_DEVICES": "0"}),
        ("mi300x", {"HIP_VISIBLE_DEVICES": "0"}),
    ],
)
def test_one_rank_for_the_gpu_and_one_name_that_shows_it(
    cluster: str, visible: dict[str, str]
) -> None:
    loaded = load_cluster(cluster)
    nodes = require_trainable(loaded, None)
    [spec] = spec_of(loaded, nodes, {cluster: replace(CPU, gpus=gpus_of(BOXES[cluster]))}).values()
    assert (spec.this_node.ranks_per_node, spec.this_node.accelerator) == (1, nodes[0].accelerator)
    rendered = environment(spec)
    names = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
    assert {name: rendered[name] for name in names if name in rendered} == visible
    assert "--num-gpus=1" in start_arguments(spec)
    assert '--resources={"rank_slot": 1, "pool_default": 1}' in start_arguments(spec)
    needs = cluster_requirements(loaded.cluster, {cluster: HostState("down", None, 0, None)})
    assert (needs[cluster].accelerator, needs[cluster].gpus) == (nodes[0].accelerator, 1)


def test_as_many_ranks_as_gpus_where_the_file_does_not_say() -> None:
    loaded = load_cluster("rtx4070")
    node = loaded.cluster.nodes[0].model_copy(update={"gpus": None})
    [spec] = spec_of(loaded, (node,), {"rtx4070": replace(CPU, gpus=gpus_of("two_old"))}).values()
    assert spec.this_node.ranks_per_node == 2
    assert environment(spec)["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "--num-gpus=2" in start_arguments(spec)


def test_a_cpu_node_hides_its_gpu() -> None:
    loaded = load_cluster("cpu2")
    nodes = require_trainable(loaded, None)
    facts = {"cpu1": replace(CPU, gpus=gpus_of("rtx4070")), "cpu2": CPU}
    for spec in spec_of(loaded, nodes, facts).values():
        rendered = environment(spec)
        assert rendered["CUDA_VISIBLE_DEVICES"] == rendered["HIP_VISIBLE_DEVICES"] == ""
        assert "ROCR_VISIBLE_DEVICES" not in rendered
        assert "--num-gpus=0" in start_arguments(spec)


def test_vendors_do_not_train_together() -> None:
    loaded = load_cluster("homelab")
    with pytest.raises(InputError, match="different accelerators, which cannot train together"):
        require_trainable(loaded, None)
    assert [node.name for node in require_trainable(loaded, "cpu")] == ["cpu1", "cpu2"]
