"""`launch recipe --cluster` from Enter to the end, on two bare machines without a route out."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import Browser
from lab import Host
from pair import CLUSTER, LONG, HostRun, PairClient, printed_steps, wait
from running import Run, kill
from situations import Seen

from launcher.raycluster.ports import cluster_ports

PORTS = cluster_ports(CLUSTER)


def test_one_command_trains_across_two_bare_hosts(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    assert [record["step"] for record in whole.metrics] == list(range(1, 41))
    assert all(record["wire_bytes"] > 0 for record in whole.metrics)
    one, two = (HostRun(host, "whole") for host in hosts)
    assert one.hashes(40) == two.hashes(40) != {}  # parameters and optimizer, on both disks
    for name in ("metrics.jsonl", "events.jsonl", "log.txt", "run.json", "summary.json"):
        assert (whole.path / name).read_bytes() == (one.path / name).read_bytes()
    assert not (two.path / "metrics.jsonl").exists() and not (whole.path / "checkpoints").exists()
    rows = Path(json.loads((one.path / "run.json").read_text())["data"]["folder"]).name
    folders = [host.home / ".launch" / "data" / "prepared" / rows for host in hosts]
    first, second = (
        {path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders
    )
    assert second.items() <= first.items()  # what was needed
    assert set(second) >= {"tokenizer.json", "train-00000.rows", "validation-00000.rows"}


def test_its_losses_are_those_of_one_machine(client: PairClient, whole: Run) -> None:
    done = client.launch("recipe", "tiny", "--name", "here", "--set", "workers=2", "--json")
    assert done.returncode == 0, done.stderr
    here = Run(client.path / "runs" / "here")
    assert whole.losses() == pytest.approx(here.losses(), rel=1e-5)


def test_uneven_shares_are_the_same_run(client: PairClient, whole: Run) -> None:
    file = client.path / "clusters" / f"{CLUSTER}.yaml"
    as_it_was = file.read_text()
    file.write_text(as_it_was.replace("{name: one,", "{name: one, share: 3,"))
    client.train("uneven")
    file.write_text(as_it_was)
    uneven = client.run("uneven")
    assert uneven.losses() == pytest.approx(whole.losses(), rel=1e-5)
    said = next(event["reasons"] for event in uneven.events if event.get("stage") == "hardware")
    assert said["shares"].startswith("one 24, two 8 of the 32 rows of a step")


def test_up_again_changes_nothing(client: PairClient, whole: Run) -> None:
    assert client.cluster("up", "--dry-run") == {"one": [], "two": []}
    seconds = client.cluster("up")["seconds"]
    assert "install" not in seconds and "gather" not in seconds
    nodes = client.cluster("status")
    assert [(node["node"], node["status"], node["starts"]) for node in nodes] == [
        ("one", "up", 1),
        ("two", "up", 1),
    ]


def test_another_client_follows_what_was_left_alone(
    client: PairClient, whole: Run, tmp_path: Path, hosts: tuple[Host, Host]
) -> None:
    started = client.launch(
        "recipe", "tiny", "--cluster", CLUSTER, "--name", "away", *LONG, "--detach", "--json"
    )
    assert json.loads(started.stdout) == {"run": "away", "cluster": CLUSTER}
    other = PairClient(tmp_path / "other", hosts)
    follower = other.start("logs", "away", "-f", "--cluster", CLUSTER)
    wait(lambda: len(other.run("away").metrics) > 5, 60, "steps in the mirror")
    assert client.cluster("status")[0]["runs"] == ["away"]
    busy = client.launch("cluster", "down", CLUSTER)
    assert busy.returncode == 2 and "away" in busy.stderr
    stopped = client.launch("stop", "away", "--json")  # known by its mirror: no --cluster
    assert stopped.returncode == 0, stopped.stderr
    steps = json.loads(stopped.stdout)["steps"]
    code, output = follower.end()
    assert code == 0
    assert printed_steps(output) == list(range(1, steps + 1))
    assert HostRun(hosts[0], "away").hashes(steps) == HostRun(hosts[1], "away").hashes(steps) != {}


def test_a_stopped_run_goes_on(client: PairClient, whole: Run, hosts: tuple[Host, Host]) -> None:
    """And ends with the losses and weights of one that nobody stopped."""
    started = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", "parts")
    wait(lambda: len(client.run("parts").metrics) > 3, 60, "steps")
    assert client.launch("stop", f"{CLUSTER}/parts").returncode == 0
    assert started.end()[0] == 0
    assert len(client.run("parts").metrics) < 40
    # One host has lost its copy: the other has it.
    shutil.rmtree(HostRun(hosts[1], "parts").path)
    other = client.launch("resume", f"{CLUSTER}/parts", "--set", "seed=7")
    assert other.returncode == 2 and "seed cannot change when a run goes on" in other.stderr
    resume = ("resume", "parts", "--cluster", CLUSTER, "--set", "checkpoint.keep=1", "--json")
    done = client.launch(*resume)
    assert done.returncode == 0, done.stderr
    assert f"run '{CLUSTER}/parts': " in done.stderr and "last saved at step" in done.stderr
    assert client.run("parts").losses() == whole.losses()
    for host in hosts:
        kept = [path.name for path in (HostRun(host, "parts").path / "checkpoints").iterdir()]
        assert kept == ["step-00000040"]
    assert HostRun(hosts[1], "parts").hashes(40) == HostRun(hosts[0], "whole").hashes(40)


def test_a_run_that_came_home_goes_on_where_its_hosts_have_forgotten_it(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    started = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", "sent")
    wait(lambda: len(client.run("sent").metrics) > 3, 60, "steps")
    assert client.launch("stop", "sent").returncode == 0
    assert started.end()[0] == 0
    there = HostRun(hosts[0], "sent").path
    shutil.copytree(there / "checkpoints", client.run("sent").path / "checkpoints")
    shutil.copyfile(there / "tokenizer.json", client.run("sent").path / "tokenizer.json")
    for host in hosts:
        shutil.rmtree(HostRun(host, "sent").path)
    taken = client.launch("recipe", "tiny", "--cluster", CLUSTER, "--name", "sent")
    assert taken.returncode == 2 and f"launch resume {CLUSTER}/sent" in taken.stderr
    done = client.launch("resume", "sent", "--json")
    assert done.returncode == 0, done.stderr
    assert client.run("sent").losses() == whole.losses()
    assert HostRun(hosts[1], "sent").hashes(40) == HostRun(hosts[0], "whole").hashes(40)


def test_a_second_run_waits_its_turn_and_says_for_whom(
    client: PairClient, whole: Run, seen: Seen
) -> None:
    first = ("recipe", "tiny", "--cluster", CLUSTER, "--name", "first", *LONG, "--detach")
    assert client.launch(*first).returncode == 0
    wait(lambda: "running" in client.launch("runs", "--cluster", CLUSTER).stdout, 60, "the first")
    second = ("recipe", "tiny", "--cluster", CLUSTER, "--name", "no", "--no-wait")
    refused = seen.launch(client, "hosts that another run has, and nobody wants to wait", *second)
    assert refused.returncode == 2 and "error: run 'first' uses these hosts" in refused.stderr
    assert not client.run("no").path.exists()
    names = ("second", "third")
    waiting = [
        client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", name, "--steps", "2")
        for name in names
    ]
    for name, each in zip(names, waiting, strict=True):
        wait(lambda: "waiting: run 'first' uses these hosts" in each.output(), 90, name)  # noqa: B023
    listed = json.loads(client.launch("runs", "--cluster", CLUSTER, "--json").stdout)
    states = {run["run"]: run["status"] for run in listed}
    assert (states["first"], states["second"]) == ("running", "waiting")
    # One that waits stops at once, one that does not goes on as soon as it can.
    assert client.launch("stop", f"{CLUSTER}/second").returncode == 0
    assert client.launch("stop", f"{CLUSTER}/first").returncode == 0
    assert [each.end(90)[0] for each in waiting] == [0, 0]
    assert len(client.run("second").metrics) == 0
    assert len(client.run("third").metrics) == 2


def test_the_run_outlives_its_client(client: PairClient, whole: Run) -> None:
    started = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", "alone")
    wait(lambda: client.run("alone").metrics, 60, "the first step")
    kill([started.pid])
    assert started.end()[0] == -signal.SIGKILL
    followed = client.launch("logs", "alone", "-f", timeout=120)
    assert followed.returncode == 0, followed.stderr
    assert printed_steps(followed.stdout) == list(range(1, 41))


def test_the_run_outlives_the_clients_network(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    """15 s without a packet to the client: no step is missed and none is shown twice.

    The run is stopped once the client is back: how long it takes does not hang on the CPU.
    """
    slow = (*LONG, "--set", "tokens_per_step=8192")
    begun = client.launch(
        "recipe", "tiny", "--cluster", CLUSTER, "--name", "cut", *slow, "--detach"
    )
    assert begun.returncode == 0, begun.stderr
    follower = client.start("logs", "cut", "-f")
    wait(lambda: len(client.run("cut").metrics) > 3, 60, "steps")
    gateway = hosts[0].lab.gateway
    for host in hosts:
        host.firewall(f"ip saddr {gateway} drop")
    reached = len(client.run("cut").metrics)
    wait(lambda: len(HostRun(hosts[0], "cut").metrics) > reached + 5, 60, "steps on the head")
    wait(lambda: "trying to reach it again" in follower.output(), 60, "the client to notice")
    for host in hosts:
        host.no_firewall()
    wait(lambda: "connected to one again" in follower.output(), 60, "the client to be back")
    assert client.launch("stop", "cut").returncode == 0
    code, output = follower.end(60)
    assert code == 0 and "Traceback" not in output
    steps = HostRun(hosts[0], "cut").metrics[-1]["step"]
    assert steps > reached + 5
    assert printed_steps(output) == list(range(1, steps + 1))


def test_ctrl_c_leaves_the_run_alone(client: PairClient, whole: Run) -> None:
    started = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", "kept", *LONG)
    wait(lambda: client.run("kept").metrics, 60, "the first step")
    started.interrupt()
    code, output = started.end()
    assert code == 130 and f"launch stop {CLUSTER}/kept" in output
    assert client.cluster("status")[0]["runs"] == ["kept"]
    assert client.launch("stop", "kept").returncode == 0


def test_a_model_speaks_here_and_there(client: PairClient, whole: Run) -> None:
    ask = ("sample", "whole", "--prompt", "def ", "--tokens", "20", "--temperature", "0", "--json")
    here = client.launch(*ask)
    assert here.returncode == 0, here.stderr
    fetched = {path.name for path in (whole.path / "checkpoints" / "step-00000040").iterdir()}
    assert fetched == {"model.safetensors", "state.json", "manifest.json"}
    # A client without torch asks the head.
    hidden = client.path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'torch' else find(name, *a)\n"
    )
    before = dict(client.environment)
    client.environment["PYTHONPATH"] = f"{hidden}:{before.get('PYTHONPATH', '')}"
    there = client.launch(*ask)
    client.environment = before
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout) == json.loads(here.stdout)


def test_figures_are_on_the_heads_metrics_port(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    url = f"http://{hosts[0].address}:{PORTS.metrics}/metrics"
    started = client.start("recipe", "tiny", "--cluster", CLUSTER, "--name", "seen", *LONG)

    def gauges() -> str:
        try:
            return get(url)[1]
        except OSError:  # a small server: it drops what it has no time for
            return ""

    wait(lambda: "ray_launch_loss{" in gauges() and 'run="seen"' in gauges(), 60, "a gauge")
    for name in ("step", "tokens_per_second", "step_seconds", "wire_bytes"):
        assert f"ray_launch_{name}{{" in gauges()
    assert client.launch("stop", "seen").returncode == 0
    started.end()


def test_the_dashboard_is_behind_the_tunnel_and_the_token(
    client: PairClient, whole: Run, hosts: tuple[Host, Host]
) -> None:
    with pytest.raises(OSError):  # from the cluster's network nobody answers
        get(f"http://{hosts[0].address}:{PORTS.dashboard}/")
    tunnel = client.start("cluster", "dashboard", CLUSTER, "--no-browser", "--json")
    wait(lambda: tunnel.output().rstrip().endswith("}"), 20, "the tunnel")
    opened = json.loads(tunnel.output())
    assert get(f"{opened['url']}api/jobs/")[0] == 401
    status, listed = get(f"{opened['url']}api/jobs/", opened["token"])
    assert status == 200
    jobs = {job["submission_id"]: job for job in json.loads(listed)}
    assert jobs["whole"]["status"] == "SUCCEEDED"
    newest = max(jobs, key=lambda name: jobs[name]["start_time"])  # the page shows ten
    if shutil.which("chromium"):
        asyncio.run(_look_at_the_dashboard(opened["url"], opened["token"], newest))
    tunnel.interrupt()
    assert tunnel.end()[0] == 0


def get(url: str, token: str = "") -> tuple[int, str]:
    """Status and text. Raises OSError where nobody answers."""
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=10)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", place.path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def _look_at_the_dashboard(url: str, token: str, job: str) -> None:
    """As a person would: the page asks for the token, then shows the job and both nodes."""
    async with Browser() as page:
        await page.open(url)
        assert job not in await page.wait_for("Authentication Token Required")
        await page.type_into("input[type=password]", token)
        await page.click("submit")
        await page.open(f"{url}#/jobs")
        assert "SUCCEEDED" in await page.wait_for(job)
        await page.open(f"{url}#/cluster")
        text = await page.wait_for("ALIVE")
        await page.wait_for("x 2")
        assert text.count("ALIVE") >= 1
