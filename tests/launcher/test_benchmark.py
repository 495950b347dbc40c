"""What a run that measures does on its ranks: threads tried, hosts and links told to rank 0."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from launcher.planner.measurement import Measurement
from launcher.training.host_speed import processor_name
from launcher.training.threads import (
    ThreadChoice,
    fewest_of_the_fastest,
    format_giga,
    try_threads,
    with_threads,
)
from nanochat.cores import Cores

PLAIN = Cores(tuple(range(24)), tuple(range(24)), ())
HYBRID = Cores(tuple(range(12)), (0, 2, 4, 6, 8, 9, 10, 11), (0, 2, 4, 6))


@pytest.mark.parametrize(
    ("rates", "best", "why"),
    [
        ({1: 50, 2: 99, 4: 195, 8: 300, 16: 412, 24: 350}, 16,
         "16 of 24: 412 GFLOP/s; 1 gives 50, 2 give 99, 4 give 195, 8 give 300, 24 give 350"),
        ({1: 50, 2: 99, 4: 195, 8: 400, 16: 412, 24: 350}, 8,
         "8 of 24: 400 GFLOP/s; 1 gives 50, 2 give 99, 4 give 195, 16 give 412, 24 give 350"),
    ],
    ids=["the fastest", "within 3% the fewest"],
)  # fmt: skip
def test_threads_that_are_tried(rates: dict[int, int], best: int, why: str) -> None:
    found = try_threads(PLAIN, 24, lambda count, cpus: rates[count] * 1e9)
    assert found == ThreadChoice(best, None, {n: rate * 1e9 for n, rate in rates.items()}, why)


@pytest.mark.parametrize(("pinned", "chosen"), [(110e9, (4, (0, 2, 4, 6))), (102e9, (8, None))])
def test_performance_cores_are_pinned_where_that_is_faster(
    pinned: float, chosen: tuple[int, tuple[int, ...] | None]
) -> None:
    def rate(count: int, cpus: tuple[int, ...] | None) -> float:
        if cpus is not None:
            assert (count, cpus) == (4, (0, 2, 4, 6))
            return pinned
        return {8: 100e9}.get(count, count * 1e9)

    found = try_threads(HYBRID, 12, rate)
    assert (found.count, found.cpus) == chosen
    if found.cpus:
        assert found.reason.startswith(
            "4 of 12, one on each performance core: 110 GFLOP/s; not pinn"
        )


def test_one_thread_says_no_more_than_that() -> None:
    assert try_threads(PLAIN, 1, lambda count, cpus: 50e9).reason == "1 of 24: 50 GFLOP/s"


def test_the_least_of_the_best() -> None:
    assert fewest_of_the_fastest({1024: 96.0, 2048: 97.5, 4096: 100.0, 8192: 99.0}) == 2048


def test_a_number_of_threads_holds_in_its_own_thread_only() -> None:
    last = max(os.sched_getaffinity(0))
    before = torch.get_num_threads(), os.sched_getaffinity(0)
    inside = with_threads(3, (last,), lambda: (torch.get_num_threads(), os.sched_getaffinity(0)))
    assert inside == (3, {last})
    assert (torch.get_num_threads(), os.sched_getaffinity(0)) == before
    with pytest.raises(OSError, match="full"):
        with_threads(1, None, lambda: (_ for _ in ()).throw(OSError("full")))


def test_names_of_processors() -> None:
    assert processor_name("processor\t: 0\nmodel name\t: AMD  EPYC\n") == "AMD EPYC"
    assert processor_name("processor\t: 0\nBogoMIPS\t: 48.00\n") is None


@pytest.mark.parametrize(
    ("rate", "words"), [(412.3e9, "412"), (7.26e9, "7.26"), (999.7e9, "1,000"), (3.2e13, "32,000")]
)
def test_rates_as_people_read_them(rate: float, words: str) -> None:
    assert format_giga(rate) == words


RANK = """\
import os
import sys
import time
from pathlib import Path
import torch
import torch.distributed as dist
from launcher.runs.folder import RunFolder
from launcher.runs.spec import BenchmarkRequest, RunSpec
from launcher.training import host_speed
from launcher.training import all_reduce_speed
from launcher.training.benchmark import Benchmark
from nanochat import speed
from nanochat.sizes import ModelConfig

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
speed.MIN_SECONDS, speed.MAX_SECONDS = 0.0, 0.01
speed.ARRAY_BYTES, speed.TABLE = 2**16, (64, 32)
host_speed.PASSES["cpu"] = (64, 128)
host_speed.IDLE_WAIT_SECONDS = 0.0
all_reduce_speed.TENSOR_BYTES, all_reduce_speed.SMALL_REPEATS = [2**16, 2**18], 3
dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=3)
model = ModelConfig(depth=2, head_dim=32, sequence_length=64, vocab_size=512)
spec = RunSpec(
    recipe_name="d2", cluster="three", created=1.0, steps=1, dtype="float32",
    benchmark=BenchmarkRequest(models=(model,)),
    versions={"torch": "2.13.0", "ray": "2.60.0", "launch": "0.1.0"},
)
run = RunFolder(folder / str(rank))
run.path.mkdir()
for attempt in range(2):
    Benchmark(
        run, spec, ["one", "two", "three"], rank=rank, device=torch.device("cpu"),
        notify=lambda message: print(attempt, message),
    ).run()
# None leaves while another may need it, nor takes gloo's threads down, which may abort it.
(folder / f"{rank}.done").touch()
while len([*folder.glob("*.done")]) < 3:
    time.sleep(0.05)
sys.stdout.flush()
os._exit(0)
"""


def test_ranks_measure_themselves_and_every_two(tmp_path: Path) -> None:
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path), str(rank)], env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(3)
    ]  # fmt: skip
    done = [rank.communicate(timeout=60) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0], done
    found = Measurement.model_validate_json((tmp_path / "0" / "measured.json").read_bytes())
    assert not (tmp_path / "1" / "measured.json").exists()
    assert (found.cluster, found.device, found.versions.keys()) == (
        "three",
        "cpu",
        {"torch", "launch"},
    )
    assert list(found.hosts) == ["one", "two", "three"]
    for speed in found.hosts.values():
        assert speed.threads == 1 and speed.thread_rates.keys() == {1} and speed.cpus is None
        assert speed.widths.keys() == {128} and speed.pass_rates.keys() == {64, 128}
        assert speed.disk_bytes_per_second > 0 and speed.resident_bytes > 50e6
    assert list(found.links) == ["one two", "one three", "two three"]
    for link in found.links.values():
        assert link.bytes_per_second > 0 and link.latency_seconds > 0
        assert link.cpu_seconds_per_byte > 0
    said = done[0][0].splitlines()
    assert any(line.startswith("0 two: threads 1 of ") for line in said)
    assert any(line.startswith("0 one - three: ") for line in said)
    assert all(line.startswith("0 ") for line in said)  # the second time all was known
