"""How fast this host computes, as one rank would use it: how many threads, at which rates."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from launcher.planner.measurement import HostSpeed, WidthRates
from launcher.planner.step_time import pass_correction
from launcher.training.threads import (
    ThreadChoice,
    fewest_of_the_fastest,
    format_giga,
    try_threads,
    with_threads,
)
from nanochat.available_memory import available_bytes
from nanochat.batch_split import MICRO_BATCH_TOKENS
from nanochat.cores import find_cores
from nanochat.disk_space import free_bytes
from nanochat.memory import keep_freed_memory
from nanochat.sizes import ModelConfig
from nanochat.speed import (
    MAX_CALL_SECONDS,
    PASS_TOKENS,
    Bench,
    PartRates,
    disk_rate,
    longest_call_seconds,
    whole_rows,
)

SMALL = (  # the shapes of d4, d8, d12
    ModelConfig(depth=4, head_dim=64, sequence_length=512),
    ModelConfig(depth=8, sequence_length=1024),
    ModelConfig(depth=12),
)
LARGE = (ModelConfig(depth=20), ModelConfig(depth=24))  # for GPUs
# Something else that computes is given this long to end: what has just been started beside a rank
# imports for 3 s on two cores. Then it is measured nevertheless, and said wherever that is used.
IDLE_WAIT_SECONDS = 5.0
BUSY_CORES, BUSY_FRACTION = 0.5, 0.1  # of the cores that this process may use: the more of the two
PASSES = {"cpu": (1024, 2048, 4096, 8192), "cuda": (4096, 8192, 16_384, 32_768)}

Notify = Callable[[str], None]


def default_models(device: torch.device) -> tuple[ModelConfig, ...]:
    return SMALL + LARGE if device.type == "cuda" else SMALL


def measure_host(
    models: Sequence[ModelConfig],
    *,
    device: torch.device,
    dtype: torch.dtype,
    folder: Path,
    max_threads: int,
    notify: Notify,
) -> HostSpeed:
    """`models`: narrow ones first; threads and passes are tried with the first. `folder`: where
    checkpoints go. Raises OSError where there is no room for 128 MB."""
    resident = psutil.Process().memory_info().rss
    if device.type == "cpu":
        keep_freed_memory()
    busy = _wait_until_idle()
    bench = Bench(device, dtype)
    if device.type == "cpu":
        threads = try_threads(
            find_cores(),
            max_threads,
            lambda count, cpus: with_threads(count, cpus, lambda: bench.product_rate(models[0])),
        )
    else:
        threads = ThreadChoice(1, None, {}, "1: the GPU computes")
    if busy:
        if threads.cpus is None:  # fewer were as fast because others used the rest
            threads = replace(threads, count=max(threads.rates, default=threads.count))
        note = f" (too low: something else kept {busy:.1f} cores busy)"
        threads = replace(threads, reason=threads.reason + note)
    notify(f"threads {threads.reason}")

    def all_rates() -> HostSpeed:
        widths = _measure_widths(bench, models, notify)
        candidates = {whole_rows(models[0], tokens) for tokens in PASSES[device.type]}
        passes = bench.pass_rates(models[0], sorted(candidates))
        notify("tokens per second by tokens per pass: " + _format_rates(passes))
        speed = HostSpeed(
            processor=_processor(device),
            threads=threads.count,
            thread_rates=threads.rates,
            cpus=threads.cpus,
            why_threads=threads.reason,
            busy_cores=busy,
            widths=widths,
            memory_bytes_per_second=bench.memory_rate(),
            adamw_bytes_per_second=bench.adamw_rate(),
            disk_bytes_per_second=disk_rate(folder),
            resident_bytes=resident,
            memory_bytes=_memory_bytes(device),
            disk_free_bytes=free_bytes(folder),
            pass_tokens=fewest_of_the_fastest(passes),
            pass_rates=passes,
        )
        speed = speed.model_copy(update={"pass_correction": _pass_correction(models[0], speed)})
        notify(
            f"memory {speed.memory_bytes_per_second / 1e9:.3g} GB/s, disk "
            f"{speed.disk_bytes_per_second / 1e6:.3g} MB/s"
        )
        return speed

    return with_threads(threads.count, threads.cpus, all_rates)


def _pass_correction(model: ModelConfig, speed: HostSpeed) -> float:
    """Of the pass that is nearest to those whose parts were timed."""
    tokens = min(speed.pass_rates, key=lambda tokens: abs(tokens - PASS_TOKENS))
    return pass_correction(model, speed, tokens, tokens / speed.pass_rates[tokens])


def _wait_until_idle() -> float:
    """How many cores something else keeps busy nevertheless: 0 where it is next to none."""
    started_at, cores = time.monotonic(), sorted(os.sched_getaffinity(0))
    while (busy := _busy_cores(cores)) > max(BUSY_CORES, BUSY_FRACTION * len(cores)):
        if time.monotonic() - started_at > IDLE_WAIT_SECONDS:
            return busy
    return 0.0


def _busy_cores(cores: Sequence[int]) -> float:
    """Of these in the next second, while this process waits."""
    percent = psutil.cpu_percent(interval=1.0, percpu=True)
    return sum(percent[core] for core in cores if core < len(percent)) / 100


def _measure_widths(
    bench: Bench, models: Sequence[ModelConfig], notify: Notify
) -> dict[int, WidthRates]:
    """Without those that would take too long here."""
    tokens = max(PASS_TOKENS, MICRO_BATCH_TOKENS["cuda"] * (bench.device.type == "cuda"))
    rates: dict[int, WidthRates] = {}
    previous: PartRates | None = None
    for model in models:
        if previous and longest_call_seconds(previous, model, tokens) > MAX_CALL_SECONDS:
            notify(f"width {model.dim} would take too long here: left out")
            break
        previous = bench.part_rates(model, tokens)
        rates[model.dim] = WidthRates(**vars(previous))
        notify(
            f"width {model.dim}: {format_giga(previous.products)} GFLOP/s, attention "
            f"{format_giga(previous.attention)}, head {format_giga(previous.head)}, "
            f"Muon {format_giga(previous.muon)}"
        )
    return rates


def _memory_bytes(device: torch.device) -> int:
    """What ranks may take, all of them together."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    resident = psutil.Process().memory_info().rss
    return resident + (available_bytes() or psutil.virtual_memory().available)


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name(Path("/proc/cpuinfo").read_text()) or platform.machine()


def processor_name(cpuinfo: str) -> str | None:
    """Of /proc/cpuinfo. ARM's kernels know none."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return " ".join(value.split())
    return None


def _format_rates(rates: Mapping[int, float]) -> str:
    return ", ".join(f"{number:,}: {rate:,.0f}" for number, rate in rates.items())
