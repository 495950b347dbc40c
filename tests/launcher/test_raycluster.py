"""What Ray is started with on each host: ports, arguments, environment."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from records import make_node, make_summary

from launcher.agent.jobs import Jobs
from launcher.agent.supervisor import (
    MAX_SOCKET_BYTES,
    SOCKET_NAME_BYTES,
    Supervisor,
    ray_folder,
    start_arguments,
)
from launcher.raycluster.control import HostState, host_state
from launcher.raycluster.environment import node_environment
from launcher.raycluster.ports import BLOCK_PORTS, cluster_ports
from launcher.raycluster.spec import CLIENT_SEEN_FILE, ClusterSpec
from launcher.ssh.fake import FakeConnection

NODES = (
    make_node("one", address="192.168.1.5", interface="eno1", cpus=8),
    make_node("two", address="192.168.1.6", interface="wlan0", cpus=4),
)
HEAD = ClusterSpec(
    cluster="home", node="one", nodes=NODES, env="e1", code="c1", python=None, profile="lan",
    idle_minutes=30,
)  # fmt: skip
OTHER = HEAD.model_copy(update={"node": "two", "env": "e2"})
LAUNCH = Path("/home/ada/.launch")


def options(spec: ClusterSpec) -> dict[str, str]:
    pairs = (word.partition("=") for word in start_arguments(spec) if word.startswith("--"))
    return {name: value for name, _, value in pairs}


def test_a_spec_survives_its_file() -> None:
    assert ClusterSpec.from_bytes(OTHER.to_bytes()) == OTHER
    assert OTHER.this_node.name == "two" and not OTHER.is_head and OTHER.head.name == "one"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 99}', b"[]"])
def test_another_file_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError):
        ClusterSpec.from_bytes(content)


def test_ports_follow_from_the_name_and_stay_below_the_ephemeral_ones() -> None:
    blocks = {cluster_ports(f"cluster-{number}").base for number in range(500)}
    assert len(blocks) > 150
    for name in ("home", "cpu2", "x"):
        ports = cluster_ports(name)
        taken = ports.listening_ports(head=True)
        assert len(set(taken)) == len(taken) <= BLOCK_PORTS
        assert set(ports.reachable_ports(head=True)) < set(taken)
        assert min(taken) >= 20_000 and max(taken) < 32_768
        assert set(ports.listening_ports(head=False)) < set(taken)
    assert cluster_ports("home") == cluster_ports("home") != cluster_ports("cpu2")


def test_every_port_of_ray_is_pinned() -> None:
    head, other, ports = options(HEAD), options(OTHER), cluster_ports("home")
    pinned = {int(value) for name, value in head.items() if "port" in name and "worker" not in name}
    assert pinned | set(ports.workers) | {ports.dashboard_metrics} == set(
        ports.listening_ports(head=True)
    )
    assert (head["--min-worker-port"], head["--max-worker-port"]) == (
        str(ports.workers[0]),
        str(ports.workers[-1]),
    )
    assert head["--dashboard-host"] == "127.0.0.1"
    assert other["--address"] == f"192.168.1.5:{ports.gcs}"
    assert not {"--head", "--port", "--dashboard-host"} & other.keys()


def test_hosts_advertise_slots_and_pools() -> None:
    assert options(OTHER)["--resources"] == '{"rank_slot": 1, "pool_default": 1}'
    assert options(OTHER)["--num-gpus"] == "0"


def test_each_host_gets_its_own_interface_threads_and_token() -> None:
    head = node_environment(HEAD, LAUNCH, LAUNCH / "ray" / "home")
    other = node_environment(OTHER, LAUNCH, LAUNCH / "ray" / "home")
    assert (head["GLOO_SOCKET_IFNAME"], other["GLOO_SOCKET_IFNAME"]) == ("eno1", "wlan0")
    assert (head["NCCL_SOCKET_IFNAME"], other["NCCL_SOCKET_IFNAME"]) == ("eno1", "wlan0")
    assert (head["OMP_NUM_THREADS"], other["OMP_NUM_THREADS"]) == ("8", "4")
    assert head["RAY_AUTH_MODE"] == "token"
    assert head["RAY_AUTH_TOKEN_PATH"] == "/home/ada/.launch/clusters/home/token"
    assert head["PYTHONPATH"] == "/home/ada/.launch/code/c1"
    assert head["LAUNCH_NODE"] == "one"


def test_wifi_is_given_more_time_than_a_cable() -> None:
    folder = LAUNCH / "ray" / "home"
    lan = node_environment(HEAD, LAUNCH, folder)
    wifi = node_environment(HEAD.model_copy(update={"profile": "wifi"}), LAUNCH, folder)
    keys = [key for key in lan if key.startswith("RAY_health_check_")]
    assert len(keys) == 3 and all(int(wifi[key]) > int(lan[key]) for key in keys)


def test_rays_folder_is_ours_unless_socket_names_would_be_too_long() -> None:
    assert ray_folder(LAUNCH, "home") == LAUNCH / "ray" / "home"
    long = Path("/home/a-user-with-a-very-long-name-indeed/.launch")
    assert ray_folder(long, "home").parent == Path("/tmp")
    longest = ray_folder(long, "a" * 32 + "." + "b" * 32)  # a pool that is a cluster of its own
    assert len(str(longest)) + SOCKET_NAME_BYTES <= MAX_SOCKET_BYTES


def test_a_head_is_in_use_while_a_client_is_there(tmp_path: Path) -> None:
    """One that has just come, or one that still sends the text of its run."""
    folder = tmp_path / "clusters" / "home"
    folder.mkdir(parents=True)
    (folder / "cluster.json").write_bytes(HEAD.to_bytes())
    supervisor = Supervisor(folder)
    assert not supervisor._in_use()
    partial = tmp_path / "text" / "blobs" / "0a1b.partial"
    partial.parent.mkdir(parents=True)
    for sign in (partial, folder / CLIENT_SEEN_FILE):
        sign.touch()
        assert supervisor._in_use()
        long_ago = time.time() - 300
        os.utime(sign, (long_ago, long_ago))
        assert not supervisor._in_use()


def test_ray_begins_anew_for_what_its_host_starts_it_with() -> None:
    """A node that comes or goes elsewhere is none of it, but the head's address is."""
    third = make_node("three", address="192.168.1.7", interface="eth0", pool="x")
    other = OTHER.model_copy(update={"nodes": (*NODES, third)})
    assert other.key == OTHER.key != HEAD.key
    moved = NODES[0].model_copy(update={"address": "192.168.1.99"})
    slow = NODES[1].model_copy(update={"pool": "slow"})
    changes: tuple[dict[str, Any], ...] = (
        {"idle_minutes": 5},
        {"profile": "wifi"},
        {"code": "c2"},
        {"nodes": (moved, NODES[1])},
        {"nodes": (NODES[0], slow)},
    )
    for change in changes:
        assert OTHER.model_copy(update=change).key != OTHER.key


def test_a_run_that_ray_is_about_to_start_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver holds no lock yet."""
    (tmp_path / "cluster.json").write_bytes(HEAD.to_bytes())
    (tmp_path / "token").touch()
    for name in ("ended", "pending", "died"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    make_summary(status="finished").write(tmp_path / "runs" / "ended" / "summary.json")
    listed = [
        {"submission_id": "pending", "status": "FAILED"},
        {"submission_id": "pending:2", "status": "PENDING"},
        {"submission_id": "died", "status": "FAILED"},
        {"submission_id": "ended", "status": "RUNNING"},  # for a moment more
    ]
    jobs = Jobs(tmp_path)
    monkeypatch.setattr(jobs, "_request", lambda *_: listed)
    assert jobs.running() == ["pending"]


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("{}\n\ndead\n", HostState("down")),
        ('{"status": "up", "pid": 7, "starts": 2, "key": "k"}\n\nsystemd\nalive\n',
         HostState("up", 7, 2, "k", "systemd")),
        ('{"status": "starting", "pid": 7, "starts": 0, "key": "k"}\n\n\nalive\n',
         HostState("starting", 7, 0, "k")),
        ("\n\ncrontab\nalive\n", HostState("starting", None, 0, None, "crontab")),
        ('{"status": "up", "pid": 7}\n\ncrontab\norphans\n', HostState("orphaned")),
    ],
)  # fmt: skip
def test_the_state_of_a_host_at_every_moment(said: str, state: HostState) -> None:
    assert host_state(FakeConnection("one", {"state.json": said}), "home") == state
