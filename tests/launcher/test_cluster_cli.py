"""launch cluster new, list, show and launch edit cluster, from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.config import paths
from launcher.config.cluster_file import load_cluster
from launcher.config.schema import SCHEMA_FILE

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("VISUAL", "EDITOR", "LAUNCH_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def launch(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-m", "launcher.cli"] if code is None else ["-c", code]
    words = [sys.executable, *start, *arguments]
    return subprocess.run(words, capture_output=True, text=True, encoding="utf-8", timeout=60)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom launcher.cli.main import main\ntry:\n    main()\nexcept SystemExit:\n"
        "    print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = launch("cluster", "--help", code=code)
    assert not set(done.stderr.split()) & {"pydantic", "yaml", "rich", "paramiko"}
    listed = [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines()]
    assert listed[:3] == ["list", "new", "show"]


@pytest.mark.parametrize("name", ["list", "new", "show"])
def test_each_command_has_help(name: str) -> None:
    done = launch("cluster", name, "--help")
    assert done.stdout.startswith(f"Usage: launch cluster {name} ")
    assert (done.returncode, done.stderr) == (0, "")


NEW = """\
# yaml-language-server: $schema=schema.json
# The first node is the head: it keeps the runs. Next: launch cluster trust lab
nodes:
  - host: pc1
    user: ada
    port: 2222
    key: ~/lab key
    accelerator: cuda
  - host: ::1
    port: 22
    key: ~/lab key
    accelerator: cuda
"""
SAID = """\
written to {path}; next:
  launch cluster trust lab            compare the host keys, pin them
  launch cluster check lab            what would go wrong, and how to mend it
  launch recipe d4 --cluster lab      train
"""


@pytest.mark.parametrize("folder", ["home/clusters", "clusters"])
def test_new(here: Path, folder: str) -> None:
    if folder == "clusters":
        (here / folder).mkdir()
    (here / "lab key").touch()
    nodes = ["--node", "ada@pc1:2222", "--node", "[::1]:22"]
    done = launch("cluster", "new", "lab", *nodes, "--key", "lab key", "--accelerator", "cuda")
    path = here / folder / "lab.yaml"
    assert (done.stdout, done.stderr) == (SAID.format(path=f"{folder}/lab.yaml"), "")
    assert path.read_text() == NEW
    assert json.loads(path.with_name(SCHEMA_FILE).read_text())["title"] == "Cluster"
    cluster = load_cluster("lab").cluster
    assert [node.name for node in cluster.nodes] == ["pc1", "node2"]

    before = path.read_bytes()
    again = launch("cluster", "new", "lab", "--node", "pc3")
    assert again.returncode == 2
    assert again.stderr == (
        f"error: {folder}/lab.yaml exists already\n"
        "fix: choose another name, or: launch edit cluster lab\n"
    )
    assert path.read_bytes() == before


def test_a_new_cluster_of_two_hosts_is_six_lines(here: Path) -> None:
    launch("cluster", "new", "lab", "--node", "pc1", "--node", "pc2")
    lines = (here / "home" / "clusters" / "lab.yaml").read_text().splitlines()
    assert lines[2:] == ["nodes:", "  - host: pc1", "  - host: pc2"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lab"], "error: missing option '--node'\n"),
        (["my lab", "--node", "a"], "error: NAME:1:1: name: expected 1 to 32 letters, "),
        (["../lab", "--node", "a"], "error: NAME:1:1: name: expected 1 to 32 letters, "),
        (["local", "--node", "a"], "error: NAME:1:1: nodes: local is this machine, without SSH, "),
        (["lab", "--node", "a:b"], "error: --node:1:1: expected [USER@]HOST[:PORT], as in "),
        (["lab", "--node", "a:0"], "error: --node:1:1: nodes[0].port: must be at least 1, "),
        (["lab", "--node", "a", "--node", "b@A:22"],
         "error: --node:1:1: nodes[1].host: this machine is node 'a' already: a machine is one "
         "node\n  b@A:22\n  ^^^^^^\n"),
        (["lab", "--node", "a", "--key", "k"], "error: invalid value for '--key': File 'k' does "),
        (["lab", "--node", "a", "--accelerator", "tpu"], "error: invalid value for '--accel"),
    ],
)  # fmt: skip
def test_what_new_refuses(here: Path, arguments: list[str], said: str) -> None:
    done = launch("cluster", "new", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(said)
    assert not (here / "home").exists()


def test_list(here: Path) -> None:
    (here / "clusters").mkdir()
    (here / "clusters" / "bad.yaml").write_text("nodes:\n  - hots: a\n")
    launch("cluster", "new", "lab", "--node", "pc1", "--node", "pc2")
    shipped = paths.shipped_folder("cluster")
    rows = json.loads(launch("cluster", "list", "--json").stdout)
    by_name = {row["name"]: row for row in rows}
    assert [row["name"] for row in rows] == [
        "local", "bad", "lab", "cpu2", "homelab", "mi300x", "rtx4070",
    ]  # fmt: skip
    assert by_name["lab"] == {
        "name": "lab", "origin": "here", "file": "clusters/lab.yaml", "nodes": ["pc1", "pc2"],
        "head": "pc1", "pools": ["default"], "change_me": False, "error": None,
    }  # fmt: skip
    assert by_name["homelab"] == {
        "name": "homelab", "origin": "shipped", "file": str(shipped / "homelab.yaml"),
        "nodes": ["cpu1", "cpu2", "rtx4070", "mi300x"], "head": "cpu1",
        "pools": ["cpu", "rtx4070", "mi300x"], "change_me": True, "error": None,
    }  # fmt: skip
    assert by_name["bad"]["error"] == (
        "clusters/bad.yaml:2:5: nodes[0].host is missing"
    )  # the first of its problems
    done = launch("cluster", "list")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[1] == ["local", "-", "-", "-", "shipped", str(shipped / "local.yaml"),
                        "this", "machine"]  # fmt: skip
    assert lines[3] == ["lab", "2", "pc1", "default", "here", "clusters/lab.yaml"]
    assert lines[4][-5:] == ["CHANGE-ME:", "launch", "edit", "cluster", "cpu2"]


SHOWN = """\
cluster      lab
file         clusters/lab.yaml
head         pc2
pools        default
network      wifi, interface eth0, 1 Gbit/s
backend      gloo
python       3.12
find links   wheels
push wheels  always
idle         Ray never ends
host keys    clusters/lab.known_hosts

node  host  user  port  key  pool     accelerator  hardware
pc1   pc1   ada   2222  k    default  cpu          8 cores, 16 GB, 65 W
pc2   pc2   -     -     -    default  cuda         2 x RTX 4070, 12 GB
-: as ssh would have it
"""


def test_show(here: Path) -> None:
    (here / "clusters").mkdir()
    (here / "clusters" / "lab.yaml").write_text(
        "nodes:\n"
        "  - {host: pc1, user: ada, port: 2222, key: k, cpus: 8, memory_gb: 16, watts: 65}\n"
        "  - {host: pc2, accelerator: cuda, gpus: 2, gpu_model: RTX 4070, memory_gb: 12}\n"
        "head: pc2\nbackend: gloo\nidle_minutes: 0\n"
        "network: {profile: wifi, interface: eth0, gbit_per_second: 1}\n"
        "environment: {python: '3.12', find_links: wheels, push: always}\n"
    )
    done = launch("cluster", "show", "lab")
    assert (done.stdout, done.stderr) == (SHOWN, "")
    document = json.loads(launch("cluster", "show", "lab", "--json").stdout)
    assert (document["name"], document["head"], document["pools"]) == ("lab", "pc2", ["default"])
    assert (document["file"], document["idle_minutes"]) == ("clusters/lab.yaml", 0)
    assert document["nodes"][1] == {
        "name": "pc2", "host": "pc2", "user": None, "port": None, "key": None, "jump": None,
        "pool": "default", "accelerator": "cuda", "cpus": None, "memory_gb": 12, "gpus": 2,
        "gpu_model": "RTX 4070", "share": 1.0, "watts": None, "change_me": False,
    }  # fmt: skip


def test_show_local() -> None:
    done = launch("cluster", "show", "local")
    assert done.stdout.splitlines()[2] == (
        "nodes        none: this machine, without SSH; runs start right here"
    )
    document = json.loads(launch("cluster", "show", "local", "--json").stdout)
    assert (document["nodes"], document["head"], document["pools"]) == ([], None, [])


def test_show_a_cluster_that_is_not_there() -> None:
    done = launch("cluster", "show", "homlab", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no cluster named 'homlab': did you mean homelab?\nfix: ")


@pytest.fixture
def editor(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes the address of the first machine."""
    script = here / "editor.py"
    script.write_text(
        "import pathlib, sys\nfile = pathlib.Path(sys.argv[1])\n"
        "file.write_text(file.read_text().replace('CHANGE-ME-1', 'pc1'))"
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")


@pytest.mark.parametrize("folder", ["home/clusters", "clusters"])
def test_edit_copies_a_shipped_cluster(here: Path, editor: None, folder: str) -> None:
    if folder == "clusters":
        (here / folder).mkdir()
    copy = f"{folder}/cpu2.yaml"
    shipped = (paths.shipped_folder("cluster") / "cpu2.yaml").read_text()
    done = launch("edit", "cluster", "cpu2")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"editing {copy}\n{copy} is a valid cluster\nstill without an address: cpu2\n"
    )
    assert (here / copy).read_text() == shipped.replace("CHANGE-ME-1", "pc1")
    assert (here / copy).with_name(SCHEMA_FILE).is_file()
    assert [node.host for node in load_cluster("cpu2").cluster.nodes] == ["pc1", "CHANGE-ME-2"]


def test_edit_shows_what_is_wrong(here: Path, editor: None) -> None:
    (here / "clusters").mkdir()
    (here / "clusters" / "lab.yaml").write_text("nodes:\n  - {host: CHANGE-ME-1, usr: ada}\n")
    done = launch("edit", "cluster", "lab")
    assert done.returncode == 2
    assert "clusters/lab.yaml:2:17: unknown key 'usr' in nodes[0]: did you" in done.stderr
    assert done.stderr.endswith("fix: launch edit cluster clusters/lab.yaml\n")
