"""Enter to the end of the first step on a cluster that is up, against bare torchrun on its hosts.

    python tests/bench/torchrun.py cpu2.yaml --recipe d4 --pairs 3

Both train the same rows with the same function; torchrun is started over SSH connections made for
it, with nanochat and the prepared rows in place. Prints each stage and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from launcher.config.cluster_file import load_cluster
from launcher.raycluster.control import read_spec
from launcher.raycluster.spec import ClusterSpec
from launcher.remote.open_runs import open_cluster_runs
from launcher.ssh.parallel import close_all, connect_all

SCRIPT = """\
import time; began = time.time()
import json, os, sys, tempfile
from pathlib import Path
import torch, torch.distributed as dist
from launcher.config.recipe import Recipe
from launcher.training.train_config import train_config
from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset.distributed import DistributedData
from nanochat.train import train
times = {"process": began, "imports": time.time()}
spec = json.loads(Path(sys.argv[1]).expanduser().read_text())
dist.init_process_group("gloo")
times["group"] = time.time()
class Watch:
    def step(self, record): times.setdefault("first step", time.time())
    def event(self, kind, **details): times.setdefault(kind, time.time())
    def stop_requested(self): return True
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
rows = DistributedData(Path("~/.launch/data/prepared", sys.argv[2]).expanduser(),
                  rank=dist.get_rank(), world_size=dist.get_world_size(),
                  writes=True, device=torch.device("cpu"))
train(train_config(Recipe.model_validate(spec)), rows,
      CheckpointFolder(Path(tempfile.mkdtemp())), Watch(), device=torch.device("cpu"),
      dtype=torch.float32, rank=dist.get_rank(), world_size=dist.get_world_size(), saves=False)
if dist.get_rank() == 0: print(json.dumps(times))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cluster")
    parser.add_argument("--recipe", default="d4")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    ours, bare = [], []
    for pair in range(arguments.pairs):
        stages, run = launch(arguments.cluster, arguments.recipe)
        ours.append(stages["first step"])
        print(f"launch   {pair}: {shown(stages)}", flush=True)
        time.sleep(20)  # idle workers are made ready again
        stages = torchrun(arguments.cluster, run)
        bare.append(stages["first step"])
        print(f"torchrun {pair}: {shown(stages)}", flush=True)
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"medians: launch {statistics.median(ours):.1f} s, "
          f"torchrun {statistics.median(bare):.1f} s, ratio {ratio:.2f}")  # fmt: skip


def launch(cluster: str, recipe: str) -> tuple[dict[str, float], str]:
    """Seconds from Enter to the end of each stage, and the name of the run."""
    began = time.time()
    command = [sys.executable, "-m", "launcher.cli", "recipe", recipe, "--cluster", cluster]
    done = subprocess.run(
        [*command, "--steps", "2", "--json"], check=True, capture_output=True, text=True
    )
    summary = json.loads(done.stdout)
    with open_cluster_runs(load_cluster(cluster)) as runs:
        run = runs.find(summary["run"])
        run.mirror.update(runs.head)
        lines = run.folder.events.read_text().splitlines()
    stages: dict[str, float] = {}
    for event in map(json.loads, lines):
        name = event.get("stage", event["kind"])
        stages.setdefault(name.replace("_", " "), event["time"] - began)
    return stages, summary["run"]


def torchrun(cluster: str, run: str) -> dict[str, float]:
    """The same with the rows and settings of that run."""
    loaded = load_cluster(cluster)
    began = time.time()
    connections = connect_all(loaded, loaded.cluster.nodes)
    times = {"connect": time.time() - began}
    head = connections[loaded.cluster.head_node.name]
    spec = read_spec(head, loaded.cluster.name)
    assert spec is not None
    folder = f".launch/clusters/{spec.cluster}"  # a purge removes it
    settings = json.loads(head.read(f"{folder}/runs/{run}/run.json"))
    rows = Path(settings["data"]["folder"]).name
    answers: dict[int, str] = {}

    def one(rank: int) -> None:
        node = spec.nodes[rank]
        connection = connections[node.name]
        connection.write(f"{folder}/bench.py", SCRIPT.encode())
        connection.write(f"{folder}/bench.json", json.dumps(settings["settings"]).encode())
        answers[rank] = connection.check(
            command(spec, rank, rows), step="torchrun", timeout=60
        )  # fmt: skip

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(spec.nodes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    close_all(connections)
    said: dict[str, Any] = json.loads(answers[0].splitlines()[-1])
    return times | {name: at - began for name, at in said.items()}


def command(spec: ClusterSpec, rank: int, rows: str) -> str:
    node, head = spec.nodes[rank], spec.head
    folder = f".launch/clusters/{spec.cluster}"
    return (
        f"GLOO_SOCKET_IFNAME={node.interface} OMP_NUM_THREADS={node.cpus} MALLOC_ARENA_MAX=1 "
        f'PYTHONPATH="$HOME/.launch/code/{spec.code}" "$HOME/.launch/env/{spec.env}/bin/python" '
        f"-P -m torch.distributed.run --nnodes {len(spec.nodes)} --node-rank {rank} "
        f"--master-addr {head.address} --master-port {spec.ports.workers[-1] + 1} "
        f"{folder}/bench.py {folder}/bench.json {rows}"
    )


def shown(stages: dict[str, float]) -> str:
    return ", ".join(f"{name} {at:.1f}" for name, at in sorted(stages.items(), key=lambda s: s[1]))


if __name__ == "__main__":
    main()
