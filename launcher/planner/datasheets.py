"""Speeds of machines that nobody has measured, from what their makers state: marked as such."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from launcher.planner.measurement import HostSpeed, LinkSpeed, WidthRates
from launcher.planner.public_runs import PublicRun, public_runs
from nanochat.batch_split import MICRO_BATCH_TOKENS
from nanochat.sizes import flops_per_token, muon_flops, parameter_counts

# Of one core in float32, forward and backward: half of what a core of an AMD EPYC with AVX-512 was
# measured to do (two of them: 141 to 185, 139 to 264, 149 to 187, 105 to 181 GFLOP/s at the widths
# of d4 to d12; `launch measure`, 2026-11-27). Cores of home machines are of all kinds.
CORE_RATES = WidthRates(products=40e9, attention=50e9, head=42e9, muon=38e9)
MEMORY_BYTES_PER_SECOND = 20e9  # of a machine with two channels of DDR4, all cores together
DISK_BYTES_PER_SECOND = 400e6
ASSUMED_CORES = 4
# A link that is not stated is one of 1 Gbit/s, or what a good Wi-Fi gives.
GBIT_PER_SECOND = {"lan": 1.0, "wifi": 0.2}
LINK_EFFICIENCY = 0.94  # of its bits, for what TCP/IP and Ethernet put around them
LATENCY_SECONDS = {"lan": 0.0005, "wifi": 0.003}
CPU_SECONDS_PER_BYTE = 1e-9
# Two ranks of one machine talk through its memory.
INTRA_HOST_LINKS = {
    "cpu": LinkSpeed(bytes_per_second=1.5e9, latency_seconds=1e-4, cpu_seconds_per_byte=1e-9),
    "cuda": LinkSpeed(bytes_per_second=10e9, latency_seconds=5e-5, cpu_seconds_per_byte=0.0),
}


@dataclass(frozen=True)
class GpuDatasheet:
    """As its maker states it. `flops`: dense bfloat16 products added up in float32."""

    flops: float
    memory_bytes_per_second: float


# The longest name that a GPU's own contains. RTX 4070: half of the 116.6 that its maker gives for
# sums in float16.
GPUS = {
    "RTX 3060": GpuDatasheet(25.4e12, 360e9),
    "RTX 3070": GpuDatasheet(40.6e12, 448e9),
    "RTX 3080": GpuDatasheet(59.5e12, 760e9),
    "RTX 3090": GpuDatasheet(71.0e12, 936e9),
    "RTX 4060": GpuDatasheet(30.3e12, 272e9),
    "RTX 4070": GpuDatasheet(58.3e12, 504e9),
    "RTX 4080": GpuDatasheet(97.5e12, 717e9),
    "RTX 4090": GpuDatasheet(165.2e12, 1008e9),
    "RTX 5070": GpuDatasheet(61.7e12, 672e9),
    "RTX 5080": GpuDatasheet(112.6e12, 960e9),
    "RTX 5090": GpuDatasheet(209.5e12, 1792e9),
    "A100": GpuDatasheet(312e12, 1555e9),
    "H100": GpuDatasheet(989e12, 3350e9),
    "H200": GpuDatasheet(989e12, 4800e9),
    "MI210": GpuDatasheet(181e12, 1638e9),
    "MI250": GpuDatasheet(191.5e12, 1638e9),  # one of its two halves: each is a GPU
    "MI300X": GpuDatasheet(1307e12, 5300e9),
    "MI325X": GpuDatasheet(1307e12, 6000e9),
}
REFERENCE_WIDTH = 768
VARIANT = re.compile(r"\b(Ti|SUPER|Laptop|Max-Q|Mobile|D)\b")  # another card than the plain one
UNKNOWN_GPU = GpuDatasheet(30e12, 350e9)
GPU_EFFICIENCY = 0.3  # of those products, where no run on such a GPU is known
MUON_EFFICIENCY = 0.15  # small matrices, one after the other
MEMORY_EFFICIENCY = 0.7
# Small models wait for the CPU that starts kernels: 53, 157 and 366 ms a step for 4, 8 and 12
# layers in 1, 2 and 4 passes on the host of an H100 (README, Measured).
LAUNCH_SECONDS = (0.0069, 0.0063)


def known_gpu(model: str | None) -> tuple[str, GpuDatasheet] | None:
    """The entry that a GPU's name (`NVIDIA GeForce RTX 4070`) means."""
    names = [name for name in GPUS if re.search(rf"(?i)\b{name}(?!\d)", model or "")]
    best = max(names, key=len, default=None)
    return None if best is None else (best, GPUS[best])


def estimate_cpu_speed(cores: int, memory_bytes: int | None) -> HostSpeed:
    rates = {name: rate * cores for name, rate in CORE_RATES.model_dump().items()}
    return HostSpeed(
        processor=f"{cores} cores",
        threads=cores,
        thread_rates={cores: rates["products"]},
        why_threads=f"{cores}: its cores",
        widths={512: WidthRates(**rates)},
        memory_bytes_per_second=MEMORY_BYTES_PER_SECOND,
        adamw_bytes_per_second=MEMORY_BYTES_PER_SECOND,
        disk_bytes_per_second=DISK_BYTES_PER_SECOND,
        memory_bytes=memory_bytes,
    )


def estimate_gpu_speed(model: str | None, memory_bytes: int | None) -> tuple[HostSpeed, str]:
    """Return the speed and its source: trainings that were logged on such a GPU, else what its
    maker states."""
    name, gpu = known_gpu(model) or ("", UNKNOWN_GPU)
    logged = {} if VARIANT.search(model or "") else _logged_runs(name)
    rates = {run.model.dim: _rate(run, gpu) for run in logged.values() if not _is_launch_bound(run)}
    source = f"estimated of trainings that were logged on one ({_describe(logged)})"
    if not rates:
        rates = {REFERENCE_WIDTH: GPU_EFFICIENCY * gpu.flops}
        source = f"estimated: {GPU_EFFICIENCY:.0%} of what its maker states"
    if not name:
        source = f"estimated: {model or 'its GPU'} is not known here"
    muon = MUON_EFFICIENCY * gpu.flops
    widths = {
        width: WidthRates(products=rate, attention=rate, head=rate, muon=muon)
        for width, rate in rates.items()
    }
    moved = MEMORY_EFFICIENCY * gpu.memory_bytes_per_second
    speed = HostSpeed(
        processor=model or "GPU",
        threads=1,
        thread_rates={},
        why_threads="1: the GPU computes",
        widths=widths,
        memory_bytes_per_second=moved,
        adamw_bytes_per_second=moved,
        disk_bytes_per_second=DISK_BYTES_PER_SECOND,
        memory_bytes=memory_bytes,
        launch_seconds=LAUNCH_SECONDS,
    )
    return speed, source


def _logged_runs(name: str) -> dict[int, PublicRun]:
    """Return the first listed run of each depth on one such GPU in bfloat16."""
    found: dict[int, PublicRun] = {}
    for run in public_runs():
        same_gpu = name and (known_gpu(run.gpu_model) or ("", None))[0] == name
        has_speed = run.tokens_per_step and run.tokens_per_second and run.basis == "logged"
        if same_gpu and has_speed and run.devices == 1 and run.precision == "bfloat16":
            found.setdefault(run.model.depth, run)
    return found


def _is_launch_bound(run: PublicRun) -> bool:
    """Tell whether its steps took as long as the CPU needs to start their kernels. Such steps do
    not show the GPU's rate, which is several times higher with larger batches."""
    assert run.tokens_per_step and run.tokens_per_second
    update, one_pass = LAUNCH_SECONDS
    passes = -(-run.tokens_per_step // MICRO_BATCH_TOKENS["cuda"])
    launching = run.model.depth * (update + one_pass * passes)
    return launching > 0.8 * run.tokens_per_step / run.tokens_per_second


def _rate(run: PublicRun, gpu: GpuDatasheet) -> float:
    """FLOP/s of its products, such that a whole step takes what was logged. Windows that are masked
    save nothing: all FLOPs are counted."""
    assert run.tokens_per_step and run.tokens_per_second
    model = replace(run.model, window_pattern="L")
    step = run.tokens_per_step / run.tokens_per_second
    moved = 14 * parameter_counts(model).total / (MEMORY_EFFICIENCY * gpu.memory_bytes_per_second)
    update = muon_flops(model) / (MUON_EFFICIENCY * gpu.flops) + moved
    return run.tokens_per_step * flops_per_token(model) / max(step - update, step / 2)


def _describe(logged: Mapping[int, PublicRun]) -> str:
    runs = sorted(logged.items())
    return ", ".join(f"d{depth} {run.tokens_per_second:,.0f} tok/s" for depth, run in runs)


def assumed_link(profile: str, gbit_per_second: float | None) -> LinkSpeed:
    """Return the link between two hosts of a cluster file, as far as the file describes it."""
    gbit = gbit_per_second or GBIT_PER_SECOND[profile]
    return LinkSpeed(
        bytes_per_second=gbit * 1e9 / 8 * LINK_EFFICIENCY,
        latency_seconds=LATENCY_SECONDS[profile],
        cpu_seconds_per_byte=CPU_SECONDS_PER_BYTE,
    )
