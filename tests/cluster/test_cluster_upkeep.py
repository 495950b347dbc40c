"""What befalls a cluster between runs: a changed file, a lost supervisor or head, a full disk, down
and purge. After the tests of runs, by name: the last one leaves the hosts as they were found."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from lab import USER, Host
from pair import CLUSTER, LONG, HostRun, PairClient, listing, printed_steps, wait
from running import Run
from situations import Seen
from terminal import Terminal


def test_a_changed_cluster_file_is_heard_and_ends_no_run(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], seen: Seen
) -> None:
    file = client.path / "clusters" / f"{CLUSTER}.yaml"
    as_it_was = file.read_text()
    begun = client.launch(
        "recipe", "tiny", "--cluster", CLUSTER, "--name", "busy", *LONG, "--detach"
    )
    assert begun.returncode == 0, begun.stderr
    for change in ("idle_minutes: 31\n", "head: two\n"):
        file.write_text(as_it_was + change)
        refused = client.launch("cluster", "up", CLUSTER)
        assert refused.returncode == 2 and "run 'busy' is at work" in refused.stderr
        assert client.launch("cluster", "down", CLUSTER).returncode == 2
    down = seen.launch(client, "down while a run is at work", "cluster", "down", CLUSTER)
    assert down.returncode == 2 and f"launch stop {CLUSTER}/busy" in down.stderr
    elsewhere = client.launch("stop", f"{CLUSTER}/busy")
    assert elsewhere.returncode == 2 and "its runs are on one still" in elsewhere.stderr
    file.write_text(as_it_was)
    remove = ("runs", "remove", f"{CLUSTER}/busy", "--yes")
    kept = client.launch(*remove)
    assert kept.returncode == 2 and f"run '{CLUSTER}/busy' is at work" in kept.stderr
    copies = [client.run("busy").path, *(HostRun(host, "busy").path for host in hosts)]
    wait(lambda: all(path.exists() for path in copies), 60, "both hosts to train")
    for answer, code, said in (("n", 130, "nothing was stopped"), ("y", 0, "stopped: one, two")):
        down = [sys.executable, "-m", "launcher.cli", "cluster", "down", CLUSTER]
        with closing(Terminal(down, client.path, client.environment)) as terminal:
            terminal.expect("Run 'busy' is at work on pair. Save and stop it?")
            terminal.type(f"{answer}\n")
            assert terminal.end() == code and said in terminal.shown + terminal.stdout
    summary = json.loads((client.run("busy").path / "summary.json").read_text())
    assert summary["steps"] == len(client.run("busy").metrics) > 0
    removed = client.launch(*remove)
    assert removed.returncode == 0, removed.stderr
    assert not any(path.exists() for path in copies)
    file.write_text(as_it_was + "idle_minutes: 31\n")
    assert "Ray" in client.cluster("up")["seconds"]
    assert "Ray" not in client.cluster("up")["seconds"]
    file.write_text(as_it_was)
    client.cluster("up")


def test_a_node_that_lost_its_supervisor_is_mended_by_up(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    """kill -9 of it: `up` ends what it has left, if anything, and starts both again."""
    hosts[1].inside("pkill -9 -f '[a]gent.supervisor'")
    one, two = client.cluster("status")
    assert one["status"] == "up" and two["status"] in ("orphaned", "down")
    client.cluster("up")
    assert [node["status"] for node in client.cluster("status")] == ["up", "up"]
    assert client.train("mended", "--steps", "2")["steps"] == 2


@pytest.mark.parametrize("number", [0, 1], ids=["head", "other"])
def test_a_host_that_was_switched_off_and_on_rejoins_without_a_client(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], number: int, seen: Seen
) -> None:
    """By a line of its user's crontab. Behind a head that came back the other host joins anew."""
    assert [node["boot_hook"] for node in client.cluster("status")] == ["crontab", "crontab"]
    before = [_starts(host) for host in hosts]
    hosts[number].power_cycle()
    began = time.monotonic()
    anew = hosts if number == 0 else hosts[1:]
    wait(lambda: all(_starts(h) not in (*before, None) for h in anew), 150, "Ray to be up")
    which = "the head, then the other host" if number == 0 else "the host"
    seen.add(
        f"{'the head' if number == 0 else 'a host'} was switched off and on",
        ("cluster", "status", CLUSTER), 0,
        f"nothing has to be done: after the boot {which} is up again", time.monotonic() - began,
    )  # fmt: skip
    assert "Ray" not in client.cluster("up")["seconds"]
    assert client.train(f"woken-{number}", "--steps", "2")["steps"] == 2


def test_two_clusters_share_a_host(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    """Each with ports, runs and processes of its own; the end of one is none of the other's."""
    pair = client.path / "clusters" / f"{CLUSTER}.yaml"
    lines = [line for line in pair.read_text().splitlines() if "name: one," not in line]
    (client.path / "clusters" / "solo.yaml").write_text("\n".join(lines) + "\n")
    (client.path / "clusters" / "solo.known_hosts").write_text(hosts[1].known_hosts_line())
    alone = client.launch(
        "recipe", "tiny", "--cluster", "solo", "--steps", "2", "--name", "alone-2"
    )
    assert alone.returncode == 0, alone.stderr
    assert [node["status"] for node in client.cluster("status")] == ["up", "up"]
    crontab = hosts[1].ssh("crontab -l").stdout
    assert crontab.count("clusters/solo/") == crontab.count(f"clusters/{CLUSTER}/") == 2
    purged = client.launch("cluster", "down", "solo", "--purge", "--json")
    assert purged.returncode == 0, purged.stderr
    removed = [item["path"] for item in json.loads(purged.stdout)["removed"]["two"]]
    assert all("/solo" in path for path in removed)  # what it shares with the other one stays
    assert [node["status"] for node in client.cluster("status")] == ["up", "up"]
    assert "Ray" not in client.cluster("up")["seconds"]
    assert f"clusters/{CLUSTER}/" in hosts[1].ssh("crontab -l").stdout


def test_a_pool_without_the_head_is_a_cluster_of_its_own(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    """With a head, ports and runs of its own, beside what the file's head is doing."""
    file = client.path / "clusters" / f"{CLUSTER}.yaml"
    as_it_was = file.read_text()
    file.write_text(as_it_was.replace("name: two,", "name: two, pool: far,"))
    far = ("recipe", "tiny", "--cluster", CLUSTER, "--pool", "far", "--steps", "2")
    refused = client.launch(*far)
    assert refused.returncode == 2 and "two is up as a host of pair" in refused.stderr
    client.cluster("down")
    client.cluster("up", "--pool", "default")
    trained = client.launch(*far, "--name", "away-from-home", "--json")
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["cluster"] == f"{CLUSTER}.far"
    assert (hosts[1].home / ".launch/clusters" / f"{CLUSTER}.far/runs/away-from-home").is_dir()
    assert printed_steps(client.launch("logs", "away-from-home").stdout) == [1, 2]
    assert [node["status"] for node in client.cluster("status")] == ["up", "up"]
    spoken = client.launch("sample", f"{CLUSTER}.far/away-from-home", "--tokens", "4")
    assert spoken.returncode == 0, spoken.stderr
    assert client.cluster("down")["stopped"] == ["one", "two"]
    assert [node["status"] for node in client.cluster("status")] == ["down", "down"]
    file.write_text(as_it_was)
    forgotten = client.launch("cluster", "down", CLUSTER)
    assert f"two: {CLUSTER}.far is there too, which the file has no more" in forgotten.stderr
    file.write_text(as_it_was.replace("name: two,", "name: two, pool: far,"))
    purged = client.launch("cluster", "down", f"{CLUSTER}.far", "--purge", "--json")
    home = json.loads(purged.stdout)["brought_home"]
    assert set(home) == {f"{CLUSTER}.far/away-from-home"}
    file.write_text(as_it_was)


@pytest.mark.skipif(not Path("/lib/systemd/systemd").exists(), reason="there is no systemd here")
def test_a_host_with_a_systemd_of_its_users_is_started_by_that(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    """Also when its supervisor is killed. The unit that it made goes with `down`."""
    two = hosts[1]
    client.cluster("down")
    two.cut_power()
    two.linger()
    two.boot()
    clients = [client.start("cluster", "up", CLUSTER) for _ in range(2)]  # both at once
    assert [each.end(120)[0] for each in clients] == [0, 0]
    assert [node["boot_hook"] for node in client.cluster("status")] == ["crontab", "systemd"]
    for harm in (two.power_cycle, lambda: two.inside("pkill -9 -f '[a]gent.supervisor'")):
        before = (_starts(two), None)
        harm()
        wait(lambda before=before: _starts(two) not in before, 60, "Ray to be up")
    assert "Ray" not in client.cluster("up")["seconds"]
    assert client.train("by-systemd", "--steps", "2")["steps"] == 2


def _starts(host: Host) -> tuple[int, int] | None:
    """Supervisor's process id and how often it has started Ray, where Ray is up."""
    try:
        state = json.loads(
            (host.home / ".launch" / "clusters" / CLUSTER / "state.json").read_text()
        )
    except (FileNotFoundError, ValueError):
        return None
    return (state["pid"], state["time"]) if state["status"] == "up" else None


def test_a_full_disk_on_one_host_is_named(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], seen: Seen
) -> None:
    two = hosts[1]
    runs = f"/home/{USER}/.launch/clusters/{CLUSTER}/runs"
    two.small_disk(runs, megabytes=1)
    full = ("recipe", "tiny", "--cluster", CLUSTER, "--name", "full", "--steps", "3")
    done = seen.launch(client, "a disk that is full when a checkpoint is written", *full)
    two.inside(f"umount {runs}")
    # The head has what the run ends with: the other's disk costs it nothing.
    assert done.returncode == 0, done.stderr
    assert "fault: two: the disk is full" in done.stderr and "Traceback" not in done.stderr


def test_down_stops_ours_and_leaves_a_strangers_ray(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], seen: Seen
) -> None:
    one = hosts[0]
    env = next((one.home / ".launch" / "env").glob("*/ready")).parent
    ray = f"/home/ada/.launch/env/{env.name}/bin/ray"
    one.ssh(
        f"RAY_AUTH_MODE=disabled {ray} start --head --port 26390 --num-cpus 1 "
        f"--include-dashboard=false --node-ip-address {one.address} --temp-dir /tmp/strange "
        "--disable-usage-stats --min-worker-port 27000 --max-worker-port 27100 "
        "--ray-client-server-port 26391 > /dev/null"
    )
    theirs = {name for name in one.processes() if "/tmp/strange" in name}
    assert theirs
    # A host that does not answer keeps none of the others from being stopped.
    file = client.path / "clusters" / f"{CLUSTER}.yaml"
    as_it_was = file.read_text()
    gone = one.address.rpartition(".")[0] + ".99"
    file.write_text(f"{as_it_was}  - {{name: gone, host: {gone}, user: {USER}}}\n")
    raised = seen.launch(client, "one of three hosts is off", "cluster", "up", CLUSTER)
    assert raised.returncode == 1 and f"no way to {gone}" in raised.stderr
    assert "ready: one, two; the same command goes on from there" in raised.stderr
    planned = client.launch("cluster", "up", CLUSTER, "--dry-run", "--json")
    assert planned.returncode == 1 and json.loads(planned.stdout) == {"one": [], "two": []}
    done = client.launch("cluster", "down", CLUSTER, "--json")
    assert done.returncode == 1 and f"no way to {gone}" in done.stderr
    assert json.loads(done.stdout)["stopped"] == ["one", "two"]
    file.write_text(as_it_was)
    # What a supervisor that was killed has left is seen, among processes of others, and ended.
    folder = f"/home/{USER}/.launch/clusters/{CLUSTER}"
    one.ssh(f"LAUNCH_CLUSTER_FOLDER={folder} setsid sleep 600 > /dev/null 2>&1 &")
    assert [node["status"] for node in client.cluster("status")] == ["orphaned", "down"]
    client.cluster("down")
    assert [node["status"] for node in client.cluster("status")] == ["down", "down"]
    left = set(one.processes())
    assert theirs <= left
    assert not [name for name in left if "launcher.agent" in name or f"/ray/{CLUSTER}" in name]
    assert not [name for name in hosts[1].processes() if "ray" in name]
    one.inside("pkill -9 -f '[t]mp/strange'")
    wait(lambda: not any("strange" in name for name in one.processes()), 10, "it to end")
    one.inside("rm -rf /tmp/strange /tmp/ray")


def test_purge_brings_checkpoints_home_and_leaves_the_hosts_as_found(
    client: PairClient, whole: Run, hosts: tuple[Host, Host], before: dict[str, dict[str, str]]
) -> None:
    # The head's newest copy of one run has one bit flipped: the other host's comes home.
    torn = HostRun(hosts[0], "whole").path / "checkpoints" / "step-00000040" / "model.safetensors"
    data = bytearray(torn.read_bytes())
    data[-1] ^= 1
    torn.write_bytes(data)
    there = HostRun(hosts[1], "whole").hashes(40)
    document = client.cluster("down", "--purge")
    assert set(document["brought_home"]) >= {"whole", "parts", "away", "alone"}
    assert whole.hashes(40) == there
    for name in document["brought_home"]:  # without it a checkpoint cannot speak
        assert (client.run(name).path / "tokenizer.json").stat().st_size > 0
    paths = [item["path"] for item in document["removed"]["one"]]
    assert any(path.startswith("~/.launch/env/") for path in paths)
    assert {host.name: listing(host) for host in hosts} == before
    assert not os.path.exists(hosts[0].home / ".launch")
    # What came home is still a run, though its hosts know nothing of it any more.
    spoken = client.launch("sample", f"{CLUSTER}/whole", "--prompt", "import ", "--tokens", "8")
    assert spoken.returncode == 0 and "shown as it was seen last" in spoken.stderr
    logs = client.launch("logs", f"{CLUSTER}/whole")
    assert printed_steps(logs.stdout) == list(range(1, 41))
