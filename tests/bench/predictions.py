"""Predicted against measured tokens per second: this machine, one test host, two, an uneven pair.

    python tests/bench/predictions.py --text '~/text/*.parquet' --state predictions.json

A host is measured once, as `launch measure` does it (the pair's are as the one; half a core is
measured by itself), and each link as it is shaped; d4 at 2,048 tokens a step is the probe. From
these alone all rows are predicted. A row is one step to warm up
and the median of three (of one, from 60 s a step); all rows of a host set run in one warm group,
with a calibration product before and after each: what the machine was slower or faster by, beside
the time of measuring, is divided out. Beside it: the published guide's law, tokens per second
proportional to 1 / its FLOPs per token, from the measured d4 of the same host set.

What is in `--state` is not measured again. About 80 minutes on two cores. `--report`: only print.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "launcher"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))
from lab import USER_ID, Host, Lab
from pair import PairClient

from launcher.config.recipe import Recipe, load_recipe
from launcher.planner.calibration import Calibration
from launcher.planner.estimate import Estimate, estimate_run
from launcher.planner.hardware import Hardware, Machine
from launcher.planner.measurement import HostSpeed, LinkSpeed, Measurement, Probe
from launcher.runs.node import RunNode
from launcher.runs.record import write_json
from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import parse_source

RANK = Path(__file__).with_name("prediction_rank.py")
TOKENS = {"d4": (2048, 32_768), "d8": (2048, 32_768), "d12": (2048,)}
PROBE = ("d4", 2048)
PROBE_STEPS = 6
SETS = {  # host set -> hosts, Mbit/s of the link, part of its core that the second host has
    "local": (0, None, 1.0),
    "one": (1, None, 1.0),
    "two": (2, None, 1.0),
    "two-1000": (2, 1000, 1.0),
    "two-100": (2, 100, 1.0),
    "uneven-1000": (2, 1000, 0.5),
}
SHARES_ROW = ("d4", 32_768)  # of the uneven pair, once more with equal shares
PORT = 29_871


def recipe_of(name: str, tokens_per_step: int) -> Recipe:
    settings = {
        "tokens_per_step": tokens_per_step, "evaluation.every_steps": 10**6,
        "checkpoint.every_minutes": "null",
    }  # fmt: skip
    if name == "d12":
        settings["sequence_length"] = 1024  # two rows of 2,048 tokens: one for each of two hosts
    pairs = [("--set", f"{key}={value}") for key, value in settings.items()]
    return load_recipe(name, [*pairs, ("--steps", "1000")]).recipe


# --- from what was measured to predictions


def hardware_of(found: dict[str, Any]) -> Hardware:
    """Of a host set's state."""
    speeds = [HostSpeed.model_validate(each) for each in found["speeds"]]
    names = found["names"]
    machines = tuple(
        Machine(
            node=RunNode(name=name, cpus=speed.threads), has_explicit_share=False, speed=speed,
            measured=True, speed_source="", memory_bytes=None, disk_free_bytes=None, watts=None,
        )
        for name, speed in zip(names, speeds, strict=True)
    )  # fmt: skip
    links = {}
    if "link" in found:
        links[names[0], names[1]] = LinkSpeed.model_validate(found["link"])
    measurement = Measurement(
        cluster="bench", measured_at=time.time(), device="cpu", dtype="float32", versions={},
        hosts=dict(zip(names, speeds, strict=True)), links={},
        probe=Probe(
            recipe="d4", depth=4, head_dim=64, sequence_length=512, tokens_per_step=2048,
            shares=dict(zip(names, found["probe"]["weights"], strict=True)),
            step_seconds=found["probe"]["seconds"] * scale(found, found["probe"]["rates"]),
            steps=PROBE_STEPS,
        ),
    )  # fmt: skip
    return Hardware("bench", machines, links, "", True, measurement, "")


def predicted(found: dict[str, Any], recipe: Recipe, weights: list[float] | None) -> Estimate:
    hardware = hardware_of(found)
    correction = Calibration([]).correction_for(hardware, recipe)
    if weights is not None:
        hardware = hardware.with_shares(dict(zip(found["names"], weights, strict=True)))
    estimate = estimate_run(recipe, hardware, correction=correction.factor)
    assert estimate is not None
    return estimate


def scale(found: dict[str, Any], rates: list[float]) -> float:
    """What seconds at these calibration rates would have been while the hosts were measured."""
    each = [now / then for now, then in zip(rates, found["calibration"], strict=True)]
    return statistics.mean(each)


# --- running a host set


class Bench:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.file: Path = arguments.state
        self.state: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.text = arguments.text

    def save(self) -> None:
        write_json(self.file, self.state)

    def prepared(self, folder: Path) -> Path:
        """Rows of each length, under its number."""
        for length in (512, 1024, 2048):
            if not (folder / str(length)).exists():
                data = prepare(
                    parse_source(f"files:{self.text}", Path.cwd()), cache=folder / "cache",
                    sequence_length=length, vocab_size=32_768, validation=None, threads=2,
                    on_progress=lambda stage, done, total: None,
                )  # fmt: skip
                shutil.copytree(data.path, folder / str(length))
        return folder

    def run(self, name: str, hosts: list[Host], data: Path, launch: Any) -> None:
        """All rows of one host set that are not there yet. launch(job): lines of rank 0."""
        found = self.state.setdefault(name, {"rows": {}})
        found["names"] = [host.name for host in hosts] or [""]
        count = max(1, len(hosts))
        if name.startswith("two") and "one" in self.state:
            alike = self.state["one"]
            found["speeds"] = [alike["speeds"][0]] * count
            found["calibration"] = alike["calibration"] * count
        measures = "speeds" not in found
        job = {
            "threads": 1 if hosts else 2, "world_size": count, "measures_hosts": measures,
            "data": str(data), "port": PORT, "rows": [],
        }  # fmt: skip
        if measures or "probe" not in found:
            equal = [1.0] * count
            probe = {"name": "probe", "timed": PROBE_STEPS, "weights": equal}
            job["rows"] = [probe | {"recipe": recipe_of(*PROBE).model_dump(mode="json")}]
            self._take(found, launch(job))
            self.save()
        job["threads"] = found["speeds"][0]["threads"]
        rows = []
        for recipe_name, every in TOKENS.items():
            for tokens in every:
                rows += self._rows(found, name, recipe_name, tokens)
        rows = [row for row in rows if row["name"] not in found["rows"]]
        if rows:
            self._take(found, launch(job | {"measures_hosts": False, "rows": rows}))

    def _rows(
        self, found: dict[str, Any], name: str, recipe_name: str, tokens: int
    ) -> Iterator[dict[str, Any]]:
        recipe = recipe_of(recipe_name, tokens)
        content = recipe.model_dump(mode="json")
        ranks = predicted(found, recipe, None).ranks
        content["micro_batch"] = ranks[0].micro_batch  # chosen by what was measured, one for all
        weights = [float(load.rows) for load in ranks]
        label = f"{recipe_name} {tokens}"
        yield {"name": label, "recipe": content, "weights": weights}
        if name.startswith("uneven") and (recipe_name, tokens) == SHARES_ROW:
            yield {"name": f"{label} equal", "recipe": content, "weights": [1.0] * len(ranks)}

    def _take(self, found: dict[str, Any], lines: Iterator[dict[str, Any]]) -> None:
        for line in lines:
            what = line.pop("what")
            if what == "hosts":
                found["speeds"] = line["speeds"]
            elif what == "link":
                found["link"] = line["speed"]
            elif what == "calibration":
                found.setdefault("calibration", line["rates"])
            elif what == "row":
                entry = {
                    "seconds": statistics.median(line["seconds"]), "steps": len(line["seconds"]),
                    "rates": line["rates"], "losses": line["losses"],
                    "wire_bytes": line["wire_bytes"],
                }  # fmt: skip
                print(f"{time.strftime('%H:%M:%S')}  {line['name']}: {entry['seconds']:.2f} s",
                      file=sys.stderr, flush=True)  # fmt: skip
                if line["name"] == "probe":
                    found["probe"] = entry | {"weights": [1.0] * len(line["rates"])}
                else:
                    found["rows"][line["name"]] = entry
            self.save()


def launch_here(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "job.json")
        file.write_text(json.dumps(job | {"folder": folder}))
        with subprocess.Popen(
            [sys.executable, str(RANK), str(file), "0"], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "2"},
        ) as process:  # fmt: skip
            yield from lines_of(process)


def launch_there(hosts: list[Host], job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """By SSH, each rank in the environment that the launcher has installed on its host."""
    processes = []
    for rank, host in enumerate(hosts):
        folder = host.home / "bench"
        (folder / "job.json").write_text(
            json.dumps(job | {"folder": "bench", "data": "bench", "address": hosts[0].address})
        )
        code = next((host.home / ".launch" / "code").glob("*/ready")).parent.name
        env = next((host.home / ".launch" / "env").glob("*/ready")).parent.name
        command = (
            "GLOO_SOCKET_IFNAME=eth0 OMP_NUM_THREADS=1 MALLOC_ARENA_MAX=1 "
            f"PYTHONPATH=$HOME/.launch/code/{code} $HOME/.launch/env/{env}/bin/python -u "
            f"bench/{RANK.name} bench/job.json {rank}"
        )
        processes.append(host.start_ssh(command))
    yield from lines_of(processes[0])
    for process in processes:
        process.wait(timeout=60)


def lines_of(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        content = json.loads(line)
        if content["what"] == "end":
            return
        yield content
    raise SystemExit(f"a rank ended early: {process.wait()}")


@contextlib.contextmanager
def two_hosts(data: Path) -> Iterator[list[Host]]:
    """With the launcher's environment, code and the rows; nothing else runs there."""
    lab = Lab(Path(tempfile.mkdtemp(prefix="launch-lab-", dir="/var/tmp")))
    try:
        for core, name in enumerate(("one", "two")):
            lab.add(name, core=core)
        client = PairClient(lab.folder / "client", lab.hosts)
        client.cluster("up", timeout=600)
        client.cluster("down", timeout=120)
        for host in lab.hosts:
            folder = host.home / "bench"
            folder.mkdir()
            for length in (512, 1024, 2048):
                shutil.copytree(data / str(length), folder / str(length))
            shutil.copy(RANK, folder)
            for path in (folder, *folder.rglob("*")):
                os.chown(path, USER_ID, USER_ID)
        yield lab.hosts
    finally:
        lab.close()


def run(bench: Bench, names: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="predictions-") as folder:
        run_on(bench, names, bench.prepared(Path(folder)))


def run_on(bench: Bench, names: list[str], data: Path) -> None:
    if "local" in names:
        bench.run("local", [], data, launch_here)
    clustered = [name for name in names if name != "local"]
    if not clustered:
        return
    with two_hosts(data) as hosts:
        for name in clustered:
            count, megabits, part = SETS[name]
            mine = hosts[:count]
            if megabits is not None:
                for host in hosts:
                    host.limit_link(megabits)
            with halved(hosts[1], part):
                bench.run(name, mine, data, lambda job, mine=mine: launch_there(mine, job))
            if megabits is not None:
                for host in hosts:
                    host.unlimit_link()


@contextlib.contextmanager
def halved(host: Host, part: float) -> Iterator[None]:
    if part == 1.0:
        yield
        return
    host.limit_cpu(part)
    try:
        yield
    finally:
        host.unlimit_cpu()


# --- what came of it


def report(state: dict[str, Any], *, as_json: bool) -> None:
    lines = []
    for name, found in state.items():
        d4 = found["rows"].get(f"{PROBE[0]} {PROBE[1]}")
        for recipe_name, every in TOKENS.items():
            for tokens in every:
                label = f"{recipe_name} {tokens}"
                row = found["rows"].get(label)
                if row is None or d4 is None:
                    continue
                estimate = predicted(found, recipe_of(recipe_name, tokens), None)
                measured = tokens / (row["seconds"] * scale(found, row["rates"]))
                law = 2048 / (d4["seconds"] * scale(found, d4["rates"]))
                law *= guide_flops("d4") / guide_flops(recipe_name)
                lines.append(
                    {
                        "hosts": name, "row": label, "measured": measured,
                        "raw": tokens / row["seconds"], "predicted": estimate.tokens_per_second,
                        "error": estimate.tokens_per_second / measured - 1,
                        "law_error": law / measured - 1,
                        "wire_error": estimate.step.wire_bytes / row["wire_bytes"] - 1
                        if row["wire_bytes"] else None,
                    }
                )  # fmt: skip
    errors = sorted(abs(line["error"]) for line in lines)
    laws = sorted(abs(line["law_error"]) for line in lines)
    summary = {
        "rows": len(lines), "median_error": statistics.median(errors), "worst_error": errors[-1],
        "median_law_error": statistics.median(laws), "worst_law_error": laws[-1],
    }  # fmt: skip
    if as_json:
        print(json.dumps({"lines": lines, "summary": summary}, indent=1))
        return
    print("| hosts | row | predicted tok/s | measured | as it was | error | the guide's law |")
    print("|" + "---|" * 7)
    for line in lines:
        print(f"| {line['hosts']} | {line['row']} | {line['predicted']:,.0f} | "
              f"{line['measured']:,.0f} | {line['raw']:,.0f} | {line['error']:+.1%} | "
              f"{line['law_error']:+.0%} |")  # fmt: skip
    print()
    for key, value in summary.items():
        print(f"{key.replace('_', ' ')}: {value if key == 'rows' else f'{value:.1%}'}")
    for name, found in state.items():
        label = f"{SHARES_ROW[0]} {SHARES_ROW[1]}"
        ours, equal = found["rows"].get(label), found["rows"].get(f"{label} equal")
        if ours and equal:
            gain = (
                equal["seconds"]
                / ours["seconds"]
                * (scale(found, equal["rates"]) / scale(found, ours["rates"]))
            )
            apart = max(
                abs(a - b) / b for a, b in zip(ours["losses"], equal["losses"], strict=False)
            )
            print(f"{name}, {label}: measured shares {gain:.2f}x of equal ones, losses within "
                  f"{apart:.1e}")  # fmt: skip


def guide_flops(name: str) -> float:
    flops = load_recipe(name).recipe.guide.flops_per_token
    assert flops is not None
    return flops


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--text", help="as of `--data files:`")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--only", default=",".join(SETS), help="of: " + ", ".join(SETS))
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    if not arguments.report:
        run(bench, arguments.only.split(","))
    report(bench.state, as_json=arguments.json)


if __name__ == "__main__":
    main()
