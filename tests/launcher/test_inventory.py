"""What a look at the hosts leaves for plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_facts import captured

from launcher.config.cluster_hosts import find_hosts
from launcher.config.loaded_cluster import LoadedCluster
from launcher.hosts.gpus import Gpu, GpuFacts
from launcher.planner.hardware import find_hardware
from launcher.raycluster.inventory import load_inventory, save_inventory

FILE = """\
nodes:
  - {name: one, host: pc1}
  - {name: two, host: pc2, cpus: 2}
  - {name: gpu, host: pc3, pool: gpus, accelerator: cuda}
"""


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedCluster:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return load(tmp_path, FILE)


def load(folder: Path, text: str) -> LoadedCluster:
    (folder / "home.yaml").write_text(text)
    hosts = find_hosts("home.yaml", None if "gpus" not in text else "default")
    assert hosts is not None
    return hosts.file


def speeds(pool: str) -> dict[str, tuple[int, str]]:
    hardware, _ = find_hardware(find_hosts("home.yaml", pool), 1)
    return {m.name: (m.speed.threads, m.speed_source) for m in hardware.machines}


def test_plans_are_of_the_cores_that_were_found(loaded: LoadedCluster, tmp_path: Path) -> None:
    assert speeds("default") == {
        "one": (4, "estimated of 4 cores, which are assumed"),
        "two": (2, "estimated of 2 cores"),
    }
    host = replace(captured("debian12"), cores=1, memory_bytes=4_000_000_000)
    save_inventory(loaded, {"one": host, "two": replace(host, cores=8)})
    found = load_inventory(loaded)
    day = found["one"].day
    assert speeds("default") == {
        "one": (1, f"estimated of 1 core, found on {day}"),
        "two": (2, f"estimated of 2 cores, found on {day}"),  # the file says how many may be used
    }
    hardware, _ = find_hardware(find_hosts("home.yaml", "default"), 1)
    assert hardware.machines[0].memory_bytes == 4_000_000_000
    load(tmp_path, FILE.replace("pc1", "pc9"))  # another machine of the same name
    assert speeds("default")["one"][1] == "estimated of 4 cores, which are assumed"


def test_plans_are_of_the_gpus_that_were_found(loaded: LoadedCluster) -> None:
    assert "one GPU is assumed" in speeds("gpus")["gpu"][1]
    card = Gpu(
        vendor="nvidia", name="NVIDIA GeForce RTX 4070", memory_bytes=12 * 2**30,
        memory_used_bytes=0, driver="560.35", architecture="8.9",
    )  # fmt: skip
    save_inventory(loaded, {"gpu": replace(captured("debian12"), gpus=GpuFacts(gpus=(card, card)))})
    hardware, _ = find_hardware(find_hosts("home.yaml", "gpus"), 1)
    [machine] = hardware.machines
    assert machine.ranks == 2 and "assumed" not in machine.speed_source
    assert machine.speed.processor == card.name and machine.memory_bytes == 12 * 2**30


def test_a_damaged_inventory_is_none(loaded: LoadedCluster, tmp_path: Path) -> None:
    save_inventory(loaded, {"one": captured("debian12")})
    file = tmp_path / "home" / "clusters" / "home" / "hosts.json"
    host = '{"one": {"host": "pc1", "seen_at": %s, "cores": %s}}'
    wrong = (host % pair for pair in (("0", '"many"'), ("0", "0"), ("1e18", "1"), ("NaN", "1")))
    for content in ("{", "[]", "[" * 100_000, '{"one": 3}', *wrong):
        file.write_text(content)
        assert load_inventory(loaded) == {}
    file.write_text(host % (0, 1))
    assert load_inventory(loaded)["one"].cores == 1


def test_what_cannot_be_kept_stops_nobody(loaded: LoadedCluster, tmp_path: Path) -> None:
    (tmp_path / "home" / "clusters" / "home" / "hosts.json").mkdir(parents=True)
    save_inventory(loaded, {"one": captured("debian12")})
    assert load_inventory(loaded) == {}
