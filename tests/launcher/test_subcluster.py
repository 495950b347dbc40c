"""Pools of a cluster file: which of them are clusters of their own, and what these are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.config.cluster_file import load_cluster
from launcher.config.loaded_cluster import require_addresses
from launcher.config.subcluster import conflicting_clusters, select_pool, subclusters
from launcher.errors import ConfigError, InputError, NotFound

FILE = """\
nodes:
  - {name: a, host: 192.168.1.5}
  - {name: b, host: 192.168.1.6}
  - {name: c, host: 192.168.1.7, pool: far, accelerator: cuda}
  - {name: d, host: CHANGE-ME-4, pool: far, accelerator: cuda}
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "clusters" / "home.yaml"
    path.parent.mkdir()
    path.write_text(FILE)
    return path


def test_a_pool_with_the_head_is_of_the_cluster_itself() -> None:
    loaded, pool = select_pool(load_cluster("home"), "default")
    assert (loaded.cluster.name, pool) == ("home", "default")
    assert select_pool(loaded, None) == (loaded, None)


@pytest.mark.parametrize("way", ["--pool", "name", "path"])
def test_any_other_is_a_cluster_with_a_head_of_its_own(way: str, file: Path) -> None:
    if way == "--pool":
        loaded, pool = select_pool(load_cluster("home"), "far")
        assert pool is None
    else:
        loaded = load_cluster("home.far" if way == "name" else f"{file}.far")
    assert loaded.cluster.name == loaded.name == "home.far"
    assert [node.name for node in loaded.cluster.nodes] == ["c", "d"]
    assert loaded.cluster.head_node.name == "c"
    assert loaded.known_hosts.name == "home.known_hosts"
    with pytest.raises(ConfigError, match=r"home\.yaml:5:21: nodes\[3\]\.host"):
        require_addresses(loaded, loaded.cluster.nodes)


def test_parts_of_a_file_know_of_each_other() -> None:
    whole = load_cluster("home")
    assert [part.cluster.name for part in subclusters(whole)] == ["home", "home.far"]
    assert conflicting_clusters(whole) == {"home.far": "home.far"}
    assert conflicting_clusters(subclusters(whole)[1]) == {"home": "home"}
    assert subclusters(subclusters(whole)[1]) == (subclusters(whole)[1],)


def test_the_pool_of_the_head_is_no_cluster_of_its_own() -> None:
    with pytest.raises(InputError, match="pool default holds the head of home") as caught:
        load_cluster("home.default")
    assert caught.value.fix == "write home, with --pool default where only its hosts are meant"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("home.fax", "no pool .fax.: did you mean .far."),
        ("hone.far", "no cluster named 'hone.far'"),
    ],
)
def test_a_name_that_means_nothing(name: str, words: str) -> None:
    with pytest.raises(NotFound, match=words):
        load_cluster(name)
