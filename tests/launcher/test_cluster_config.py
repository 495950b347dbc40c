"""Cluster files: what is found, what is read, and what exactly is said of a wrong line."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.config import paths
from launcher.config.address import Address, parse_address
from launcher.config.cluster import Cluster, Environment, Network
from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import (
    LoadedCluster,
    lacks_address,
    require_addresses,
    require_node,
    require_pool,
)
from launcher.config.node import Node
from launcher.config.schema import json_schema
from launcher.errors import ConfigError, InputError, NotFound

GOOD = "nodes:\n  - host: pc1\n  - host: pc2\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clusters").mkdir()
    return tmp_path


def load(text: str, name: str = "c") -> LoadedCluster:
    Path("clusters", f"{name}.yaml").write_text(text)
    return load_cluster(name)


def message(text: str, name: str = "c") -> str:
    with pytest.raises(ConfigError) as raised:
        load(text, name)
    assert raised.value.fix == f"launch edit cluster {name}"
    return raised.value.message


# Text added to a good cluster (line 4 on; indented: more of node pc2) -> place, words and caret.
WRONG_LINES = [
    ("hed: pc1", "4:1: unknown key 'hed': did you mean 'head'?\n  hed: pc1\n  ^^^"),
    (
        "    usr: ada",
        "4:5: unknown key 'usr' in nodes[1]: did you mean 'user'?\n      usr: ada\n      ^^^",
    ),
    (
        "network: {wifi: true}",
        "4:11: unknown key 'wifi' in network: known are interface, profile, gbit_per_second\n"
        "  network: {wifi: true}\n            ^^^^",
    ),
    (
        "  - pc3",
        "4:5: nodes[2]: expected keys and values, got the text 'pc3'\n    - pc3\n      ^^^",
    ),
    ("  - user: ada", "4:5: nodes[2].host is missing\n    - user: ada\n      ^"),
    (
        "  - host: ada@pc3",
        "4:11: nodes[2].host: 'ada@pc3' is more than a host: write host: pc3, user: ada\n"
        "    - host: ada@pc3\n            ^^^^^^^",
    ),
    (
        "  - host: pc3:2222",
        "4:11: nodes[2].host: 'pc3:2222' is more than a host: write host: pc3, port: 2222\n"
        "    - host: pc3:2222\n            ^^^^^^^^",
    ),
    (
        "  - host: '[::1]:22'",
        "4:11: nodes[2].host: '[::1]:22' is more than a host: write host: ::1, port: 22\n"
        "    - host: '[::1]:22'\n            ^^^^^^^^^^",
    ),
    (
        "  - host: ssh://pc3",
        "4:11: nodes[2].host: expected a name, an alias of ~/.ssh/config or an IP address, "
        "got 'ssh://pc3'\n    - host: ssh://pc3\n            ^^^^^^^^^",
    ),
    (
        "  - host: 10",
        "4:11: nodes[2].host: expected text, got 10: write it in quotes, '10'\n"
        "    - host: 10\n            ^^",
    ),
    (
        "    user: no",
        "4:11: nodes[1].user: expected text, got no, in YAML false: write it in quotes, 'no'\n"
        "      user: no\n            ^^",
    ),
    (
        "    name: two pcs",
        "4:11: nodes[1].name: expected 1 to 32 letters, digits and . _ -, no mark in front, "
        "got 'two pcs'\n      name: two pcs\n            ^^^^^^^",
    ),
    (
        "    pool: -a",
        "4:11: nodes[1].pool: expected 1 to 32 letters, digits and . _ -, no mark in front, "
        "got '-a'\n      pool: -a\n            ^^",
    ),
    (
        "    port: 65_536",
        "4:11: nodes[1].port: must be at most 65,535, got 65_536\n"
        "      port: 65_536\n            ^^^^^^",
    ),
    ("    port: 0", "4:11: nodes[1].port: must be at least 1, got 0\n      port: 0\n            ^"),
    ("    cpus: 0", "4:11: nodes[1].cpus: must be at least 1, got 0\n      cpus: 0\n            ^"),
    (
        "    memory_gb: 0",
        "4:16: nodes[1].memory_gb: must be more than 0, got 0\n"
        "      memory_gb: 0\n                 ^",
    ),
    (
        "    watts: -5",
        "4:12: nodes[1].watts: must be more than 0, got -5\n      watts: -5\n             ^^",
    ),
    (
        "network: {gbit_per_second: 0}",
        "4:28: network.gbit_per_second: must be more than 0, got 0\n"
        "  network: {gbit_per_second: 0}\n                             ^",
    ),
    (
        "idle_minutes: -1",
        "4:15: idle_minutes: must be at least 0, got -1\n  idle_minutes: -1\n                ^^",
    ),
    (
        "    accelerator: gpu",
        "4:18: nodes[1].accelerator: expected cpu, cuda or rocm, got the text 'gpu'\n"
        "      accelerator: gpu\n                   ^^^",
    ),
    (
        "    jump: ada@",
        "4:11: nodes[1].jump: expected [USER@]HOST[:PORT], several with commas, or none, got "
        "'ada@'\n      jump: ada@\n            ^^^^",
    ),
    (
        "    jump: pc1:99999",
        "4:11: nodes[1].jump: expected [USER@]HOST[:PORT], several with commas, or none, got "
        "'pc1:99999'\n      jump: pc1:99999\n            ^^^^^^^^^",
    ),
    (
        "    share: half",
        "4:12: nodes[1].share: expected a number, got the text 'half'\n"
        "      share: half\n             ^^^^",
    ),
    (
        "storage: s3://x",
        "4:10: storage: not supported yet: leave it out\n  storage: s3://x\n           ^^^^^^",
    ),
    (
        "environment:\n  python: 3.10",
        "5:11: environment.python: expected text, got 3.10: write it in quotes, '3.10'\n"
        "    python: 3.10\n            ^^^^",
    ),
    (
        "environment: {python: python3}",
        "4:23: environment.python: expected auto, a version as in 3.12 or 3.12.11, or an archive, "
        "got 'python3'\n  environment: {python: python3}\n                        ^^^^^^^",
    ),
    (
        "environment: {push: no}",
        "4:21: environment.push: expected auto, always or never, got no, in YAML false\n"
        "  environment: {push: no}\n                      ^^",
    ),
    (
        "environment: {index_url: ''}",
        "4:26: environment.index_url: must not be empty\n"
        "  environment: {index_url: ''}\n                           ^^",
    ),
    # Rules between keys
    (
        "    name: pc1",
        "4:11: nodes[1].name: another node is named 'pc1' already\n"
        "      name: pc1\n            ^^^",
    ),
    (
        "  - host: PC1\n    user: ada",
        "4:11: nodes[2].host: this machine is node 'pc1' already: a machine is one node\n"
        "    - host: PC1\n            ^^^",
    ),
    ("head: pc", "4:7: head: no node is named 'pc': did you mean 'pc2'?\n  head: pc\n        ^^"),
    (
        "head: x",
        "4:7: head: no node is named 'x': known are pc1, pc2\n  head: x\n        ^",
    ),
    (
        "    gpus: 1",
        "4:11: nodes[1].gpus: accelerator is cpu: write accelerator: cuda, or rocm\n"
        "      gpus: 1\n            ^",
    ),
    (
        "  - {host: a, accelerator: cuda}\n  - {host: b, accelerator: rocm}",
        "5:28: nodes[3].accelerator: cuda and rocm in pool 'default': NCCL and RCCL ranks cannot "
        "share a group: give it another pool\n"
        "    - {host: b, accelerator: rocm}\n                             ^^^^",
    ),
    (
        "    accelerator: cuda\nbackend: nccl",
        "5:10: backend: nccl needs accelerator cuda, which pc1 has not: leave backend out, and it "
        "will fit\n  backend: nccl\n           ^^^^",
    ),
    (
        "backend: rccl",
        "4:10: backend: rccl needs accelerator rocm, which pc1, pc2 have not: leave backend out, "
        "and it will fit\n  backend: rccl\n           ^^^^",
    ),
]


@pytest.mark.parametrize(("line", "expected"), WRONG_LINES)
def test_wrong_line(line: str, expected: str) -> None:
    assert message(GOOD + line) == f"clusters/c.yaml:{expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nodes:", "1:7: nodes: expected a list, got nothing\n  nodes:\n        ^"),
        ("nodes: pc1", "1:8: nodes: expected a list, got the text 'pc1'\n  nodes: pc1\n"
         "         ^^^"),
        ("nodes: {host: a}", "1:8: nodes: expected a list, got keys and values\n"
         "  nodes: {host: a}\n         ^^^^^^^^^"),
        ("nodes: []", "1:8: nodes: name at least one machine, as in - host: pc1\n  nodes: []\n"
         "         ^^"),
        ("name: x", "1:1: nodes: name at least one machine, as in - host: pc1\n  name: x\n"
         "  ^^^^^^^"),
        ("name: local\nnodes: [{host: a}]",
         "2:8: nodes: local is this machine, without SSH, and has no nodes\n"
         "  nodes: [{host: a}]\n         ^^^^^^^^^^^"),
        ("name: local\nidle_minutes: 5",
         "2:15: idle_minutes: local is this machine, without SSH, and has no idle_minutes\n"
         "  idle_minutes: 5\n                ^"),
    ],
)  # fmt: skip
def test_wrong_file(text: str, expected: str) -> None:
    assert message(text) == f"clusters/c.yaml:{expected}"


def test_a_file_whose_name_is_no_name() -> None:
    said = message(GOOD, "my lab")
    assert said.startswith("clusters/my lab.yaml:1:1: name: expected 1 to 32 letters")
    assert load(f"name: lab\n{GOOD}", "my lab").name == "lab"


def test_all_problems_are_shown_from_top_to_bottom() -> None:
    said = message("nodes:\n  - {host: a@b, prot: 1}\n  - {port: x}\nhead: 5\nzzz: 1\n")
    places = [line.split(": ")[0] for line in said.splitlines() if not line.startswith("  ")]
    rows = ["2:12", "2:17", "3:5", "3:12", "4:7", "5:1"]
    assert places == [f"clusters/c.yaml:{row}" for row in rows]


def test_two_hosts_need_few_lines() -> None:
    loaded = load(GOOD)
    cluster = loaded.cluster
    assert (loaded.name, cluster.name, loaded.cli_name) == ("c", "c", "c")
    assert loaded.known_hosts == Path("clusters/c.known_hosts")
    assert cluster.nodes == (Node(name="pc1", host="pc1"), Node(name="pc2", host="pc2"))
    assert cluster.head_node.name == "pc1"
    assert (cluster.pools, cluster.backend, cluster.idle_minutes) == (("default",), None, 30)
    assert (cluster.network, cluster.environment) == (Network(), Environment())
    assert cluster.nodes[0].model_dump(exclude={"name", "host"}, exclude_none=True) == {
        "pool": "default",
        "accelerator": "cpu",
        "share": 1.0,
    }


@pytest.mark.parametrize(
    ("hosts", "names"),
    [
        (["pc1", "192.168.1.20"], ["pc1", "192.168.1.20"]),
        (["::1", "2001:2::7"], ["node1", "node2"]),
        (["_pc", "a" * 33, "a" * 32], ["node1", "node2", "a" * 32]),
    ],
)
def test_names_of_nodes(hosts: list[str], names: list[str]) -> None:
    text = "".join(f"  - host: '{host}'\n" for host in hosts)
    assert [node.name for node in load(f"nodes:\n{text}").cluster.nodes] == names


def test_one_address_may_lead_to_several_machines() -> None:
    text = "nodes:\n  - {host: gate}\n  - {host: gate, port: 2201}\n  - {host: gate, port: 2202}\n"
    assert [node.name for node in load(text).cluster.nodes] == ["gate", "node2", "node3"]
    assert "is node 'gate' already" in message(text.replace("2201", "22"))


@pytest.mark.parametrize(
    ("written", "python"),
    [
        ("auto", None),
        ("null", None),
        ("'3.12'", "3.12"),
        ("3.12.11", "3.12.11"),
        ("~/python.tar.gz", "~/python.tar.gz"),
        ("python.tar.gz", "python.tar.gz"),
        ("https://example.org/python.tar.gz", "https://example.org/python.tar.gz"),
    ],
)
def test_python(written: str, python: str | None) -> None:
    loaded = load(f"{GOOD}environment:\n  python: {written}\n")
    assert loaded.cluster.environment.python == python


@pytest.mark.parametrize(
    "lines",
    [
        "backend: gloo",
        "network: {profile: wifi, interface: eth0, gbit_per_second: 2.5}",
        "idle_minutes: 0",
        "    memory_gb: 62\n    cpus: 24\n    watts: 250",
        "    pool: gpu\n    accelerator: cuda\n  - {host: c, pool: amd, accelerator: rocm}",
        "    accelerator: cuda\n    gpus: 2\n    gpu_model: RTX 4070",
        "head: pc2",
        "storage: null",
    ],
)
def test_what_goes(lines: str) -> None:
    load(GOOD + lines)


@pytest.mark.parametrize(("backend", "vendor"), [("nccl", "cuda"), ("rccl", "rocm")])
def test_the_backend_of_gpus(backend: str, vendor: str) -> None:
    text = f"backend: {backend}\nnodes:\n  - {{host: a, accelerator: {vendor}}}\n"
    assert load(text).cluster.backend == backend


def test_pools_and_head() -> None:
    loaded = load("head: b\nnodes:\n  - {host: a, pool: x}\n  - {host: b}\n  - {host: c, pool: x}")
    cluster = loaded.cluster
    assert (cluster.head_node.name, cluster.pools) == ("b", ("x", "default"))
    assert [node.name for node in require_pool(loaded, "x")] == ["a", "c"]
    assert require_pool(loaded, None) == cluster.nodes_in_pool(None) == cluster.nodes
    assert require_node(loaded, "c") is cluster.nodes[2]
    for require, name, said in (
        (require_pool, "defualt", "cluster c has no pool 'defualt': did you mean 'default'?"),
        (require_node, "z", "cluster c has no node 'z': known are a, b, c"),
    ):
        with pytest.raises(NotFound) as raised:
            require(loaded, name)
        assert (raised.value.message, raised.value.fix) == (said, "launch cluster show c")


def test_a_later_error_points_at_its_key() -> None:
    error = load(GOOD).error("nodes[1].host", "no such host", fix="ask")
    assert error.message.startswith("clusters/c.yaml:3:11: nodes[1].host: no such host\n")
    assert error.fix == "ask"


def test_hosts_that_are_still_to_be_written() -> None:
    loaded = load("nodes: [{host: CHANGE-ME-1}, {host: pc}, {host: CHANGE-ME-2}]")
    nodes = loaded.cluster.nodes
    require_addresses(loaded, nodes[1:2])
    for chosen, columns in ((nodes, [16, 49]), (nodes[1:], [49])):
        with pytest.raises(ConfigError) as raised:
            require_addresses(loaded, chosen)
        said = raised.value.message.splitlines()[::3]
        assert [line.partition(": ")[0] for line in said] == [
            f"clusters/c.yaml:1:{column}" for column in columns
        ]
        assert raised.value.fix == "launch edit cluster c"


def test_local_has_no_hosts() -> None:
    loaded = load_cluster("local")
    assert loaded.cluster == Cluster(name="local")
    for call in (
        lambda: require_addresses(loaded, loaded.cluster.nodes),
        lambda: require_pool(loaded, None),
        lambda: require_node(loaded, "x"),
        lambda: loaded.cluster.head_node,
    ):
        with pytest.raises(InputError, match="local is this machine, without SSH"):
            call()


SHIPPED = [  # name, hosts, pools, accelerators
    ("local", 0, (), []),
    ("cpu2", 2, ("default",), ["cpu", "cpu"]),
    ("rtx4070", 1, ("default",), ["cuda"]),
    ("mi300x", 1, ("default",), ["rocm"]),
    ("homelab", 4, ("cpu", "rtx4070", "mi300x"), ["cpu", "cpu", "cuda", "rocm"]),
]


@pytest.mark.parametrize(("name", "hosts", "pools", "accelerators"), SHIPPED)
def test_shipped_cluster(
    name: str, hosts: int, pools: tuple[str, ...], accelerators: list[str]
) -> None:
    loaded = load_cluster(name)
    nodes = loaded.cluster.nodes
    assert loaded.path.parent == paths.shipped_folder("cluster")
    assert (loaded.name, loaded.cluster.pools) == (name, pools)
    assert [node.host for node in nodes] == [f"CHANGE-ME-{n + 1}" for n in range(hosts)]
    assert all(lacks_address(node) and node.memory_gb for node in nodes)
    assert [node.accelerator for node in nodes] == accelerators


def test_nearer_clusters_hide_farther_ones(here: Path) -> None:
    home = here / "home" / "clusters" / "cpu2.yml"
    home.parent.mkdir(parents=True)
    home.write_text(GOOD)
    assert load_cluster("cpu2").path == home
    assert load(GOOD, "cpu2").path == Path("clusters/cpu2.yaml")
    assert load_cluster(str(home)).path == home


def test_a_cluster_is_found_by_the_name_in_its_file() -> None:
    load(f"name: lab\n{GOOD}", "mine")
    Path("clusters/other.yaml").write_text("nodes: [")
    loaded = load_cluster("lab")
    assert (loaded.path, loaded.name) == (Path("clusters/mine.yaml"), "lab")
    with pytest.raises(NotFound, match="no cluster named 'labb'"):
        load_cluster("labb")


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("pc1", Address("pc1")),
        ("ada@pc1.lan:2222", Address("pc1.lan", "ada", 2222)),
        ("198.18.0.11:22", Address("198.18.0.11", None, 22)),
        ("::1", Address("::1")),
        ("fe80::1%eth0", Address("fe80::1%eth0")),
        ("[2001:2::7]", Address("2001:2::7")),
        ("ada@[::1]:22", Address("::1", "ada", 22)),
        ("", None),
        ("@pc1", None),
        ("ada@", None),
        ("pc1:", None),
        ("pc1:ssh", None),
        ("-oProxyCommand=x", None),
        ("[pc 1]", None),
        ("pc1\n", None),
    ],
)
def test_addresses(written: str, address: Address | None) -> None:
    assert parse_address(written) == address


def test_schema_has_every_key_with_its_meaning() -> None:
    found = json_schema("cluster")
    blocks = {"Cluster": found, **found["$defs"]}
    for model in (Cluster, Node, Network, Environment):
        block = blocks[model.__name__]
        assert list(block["properties"]) == list(model.model_fields)
        described = {key for key, value in block["properties"].items() if "description" in value}
        assert described >= set(model.model_fields) - {"network", "environment"}
        assert block["additionalProperties"] is False
    node = blocks["Node"]
    assert node["required"] == ["host"]
    assert node["properties"]["name"]["pattern"] == "^[A-Za-z0-9][A-Za-z0-9._-]{0,31}$"
    assert node["properties"]["port"]["anyOf"][0] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 65535,
    }
