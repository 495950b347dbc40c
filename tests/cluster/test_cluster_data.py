"""Text of runs on a cluster: on the hosts already, from a hub that the head reaches or does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lab import Host, Lab
from mirror import publish, serving
from pair import CLUSTER, PairClient
from running import Run

from nanochat.dataset.climbmix import TRAINING_SHARDS, shard_name

SHORT = ("--steps", "3", "--set", "warmup_steps=0")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub's folder: two shards to train on, and the last one."""
    folder = tmp_path_factory.mktemp("hub")
    publish(folder, 2, documents=300)
    return folder


def test_files_that_the_hosts_have_are_trained_on_there(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    text = (client.path / "text.py").read_text()
    for host in hosts:
        (host.home / "texts").mkdir()
        for name in ("a.txt", "b.md"):
            (host.home / "texts" / name).write_text(f"# {name}\n{text}")
    options = ("--data", "host:texts/*", *SHORT)
    client.train("held", *options)
    assert len(client.run("held").metrics) == 3

    (hosts[1].home / "texts" / "b.md").write_text("another text\n" * 9)
    refused = client.launch("recipe", "tiny", "--cluster", CLUSTER, *options)
    assert refused.returncode == 1
    assert "error: host:texts/*: b.md on two is not what one has\n" in refused.stderr
    shutil.rmtree(hosts[1].home / "texts")  # rows reach it from the head
    client.train("held-by-one", *options)
    assert client.run("held-by-one").losses() == client.run("held").losses()
    shutil.rmtree(hosts[0].home / "texts")
    refused = client.launch("recipe", "tiny", "--cluster", CLUSTER, *options)
    assert refused.returncode == 1
    assert "error: one: host:texts/*: no file matches /home/" in refused.stderr


def test_a_head_that_reaches_the_hub_fetches_while_it_trains(
    client: PairClient, whole: Run, lab: Lab, hosts: tuple[Host, Host], shards: Path
) -> None:
    with serving(shards, lab.gateway) as mirror:
        mirror.pause_seconds = 0.02
        options = ("--data", "climbmix:2", "--set", f"data.mirror={mirror.address}")
        client.train("fetched", *options, *SHORT)
        assert sorted(set(mirror.names())) == sorted(path.name for path in shards.iterdir())
    assert not (client.path / "data" / "climbmix").exists()
    text = [event["words"] for event in client.run("fetched").events if "words" in event]
    assert text[0].endswith("the rest follows while the run goes on")


def test_a_head_that_does_not_gets_shards_from_the_client(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], shards: Path
) -> None:
    there = hosts[0].home / ".launch" / "data" / "climbmix"
    shutil.rmtree(there)
    with serving(shards) as mirror:  # on the client's own loopback
        options = ("--data", "climbmix:2", "--set", f"data.mirror={mirror.address}")
        client.train("sent-shards", *options, *SHORT)
        asked = len(mirror.requests)
        assert sorted(mirror.names()) == sorted(path.name for path in shards.iterdir())
        client.train("sent-again", *options, *SHORT)
        assert len(mirror.requests) == asked
    for path in shards.iterdir():
        assert (there / path.name).read_bytes() == path.read_bytes()
    fetched, sent, again = (client.run(name) for name in ("fetched", "sent-shards", "sent-again"))
    assert fetched.losses() == sent.losses() == again.losses()


def test_a_folder_of_shards_is_sent_too(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], shards: Path
) -> None:
    shutil.rmtree(hosts[0].home / ".launch" / "data" / "climbmix")
    options = ("--data", "climbmix:1", "--set", f"data.mirror={shards}")
    client.train("from-a-folder", *options, *SHORT)
    there = hosts[0].home / ".launch" / "data" / "climbmix"
    assert {path.name for path in there.glob("*.parquet")} == {
        shard_name(0),
        shard_name(TRAINING_SHARDS),
    }
