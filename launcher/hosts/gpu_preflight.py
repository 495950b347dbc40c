"""The judgement of a host's GPUs: whether what the cluster file wants of them is there to use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from launcher.formatting import format_bytes
from launcher.hosts.facts import HostFacts
from launcher.hosts.gpus import (
    CUDA_12_6_END,
    CUDA_12_DRIVER,
    CUDA_13_CAPABILITY,
    CUDA_13_DRIVER,
    Gpu,
    GpuFacts,
    Vendor,
    parse_version,
    torch_build,
)
from launcher.hosts.preflight import Finding

Accelerator = Literal["cpu", "cuda", "rocm"]
VENDOR_BY_ACCELERATOR: dict[Accelerator, Vendor] = {"cuda": "nvidia", "rocm": "amd"}
ACCELERATOR_BY_VENDOR: dict[Vendor, Accelerator] = {"amd": "rocm", "nvidia": "cuda"}
BRANDS: dict[Vendor, str] = {"nvidia": "NVIDIA", "amd": "AMD"}

USED_WARNING = 0.1  # of a GPU's memory: a desktop takes less

# What nvidia-smi says in place of GPUs, in lower case, and what that asks for.
NVIDIA_FIXES = {
    "version mismatch": "reboot it: its driver was updated while the old one was loaded",
    "couldn't communicate": "load the driver (sudo modprobe nvidia), or install it anew for the "
    "kernel that runs; where Secure Boot refuses it, enrol its key",
    "no devices were found": "reboot it; dmesg | grep -i nvrm says what became of the card",
}
INSTALL_FIXES: dict[Vendor, str] = {
    "nvidia": "install NVIDIA's driver, 580 or newer (Ubuntu: sudo ubuntu-drivers install)",
    "amd": "install AMD's driver (amdgpu-dkms, of ROCm 7.2), then reboot it",
}


def judge_gpus(
    name: str, host: HostFacts, accelerator: Accelerator, wanted: int | None, *, is_up: bool = False
) -> Iterator[Finding]:
    """`accelerator` and `wanted` (GPUs; None: all there are): the cluster file's. `is_up`: our own
    cluster is up and may use their memory."""
    facts = host.gpus
    if accelerator == "cpu":
        if facts.gpus:
            yield Finding(
                "ok",
                name,
                "gpu",
                f"{_count_by_name(list(facts.gpus))}: not used, accelerator is cpu",
            )
        return
    vendor = VENDOR_BY_ACCELERATOR[accelerator]
    gpus = facts.of_vendor(vendor)
    if not gpus:
        yield _no_gpu(name, facts, accelerator)
        return
    if wanted is not None and wanted > len(gpus):
        yield Finding(
            "error",
            name,
            "gpu",
            f"it has {_count_by_name(gpus)}, but the cluster file says gpus: {wanted}",
            f"write gpus: {len(gpus)}, or leave it out",
        )
        return
    if vendor == "amd" and facts.can_open_kfd is False:
        yield Finding(
            "error",
            name,
            "gpu",
            f"{_count_by_name(gpus)}: {host.user or 'the login'} may not open /dev/kfd",
            f"sudo usermod -aG render,video {host.user}, then log in anew",
        )
        return
    yield Finding("ok", name, "gpu", "; ".join(map(_describe, gpus)))
    if vendor == "nvidia":
        yield from _judge_cuda(name, gpus)
        if torch_build(facts) == "cu126":
            yield from _judge_capability(name, gpus)
    if not is_up:
        yield from _judge_memory(name, gpus[:wanted])


def _no_gpu(name: str, facts: GpuFacts, accelerator: Accelerator) -> Finding:
    vendor = VENDOR_BY_ACCELERATOR[accelerator]
    brand = BRANDS[vendor]
    if error := (facts.tool_errors or {}).get(vendor):
        fixes = [fix for start, fix in NVIDIA_FIXES.items() if start in error.lower()]
        fix = fixes[0] if fixes else f"make nvidia-smi work on {name}"
        return Finding("error", name, "gpu", f"nvidia-smi says: {error}", fix)
    if vendor in facts.pci_vendors:
        message = f"an {brand} card is on its bus, and no driver that can compute with it"
        return Finding("error", name, "gpu", message, INSTALL_FIXES[vendor])
    others = [gpu for gpu in facts.gpus if gpu.vendor != vendor]
    message = f"accelerator is {accelerator}, but it has no {brand} GPU"
    if others:
        other = ACCELERATOR_BY_VENDOR[others[0].vendor]
        return Finding(
            "error", name, "gpu", f"{message}: it has {_count_by_name(others)}",
            f"write accelerator: {other}",
        )  # fmt: skip
    return Finding("error", name, "gpu", message, "write accelerator: cpu")


def _judge_cuda(name: str, gpus: list[Gpu]) -> Iterator[Finding]:
    """Which builds of torch its drivers and GPUs can use."""
    driver = gpus[0].driver or ""
    found = parse_version(driver)
    if found and found < CUDA_12_DRIVER:
        message = f"driver {driver} is too old for any build of torch: they are for CUDA 12 and 13"
        yield Finding("error", name, "gpu-driver", message, "update it to 580 or newer")
    elif found and found < CUDA_13_DRIVER:
        message = f"driver {driver} is older than CUDA 13: torch is taken for CUDA 12.6"
        yield Finding("ok", name, "gpu-driver", message)
    for gpu in gpus:
        capability = parse_version(gpu.architecture)
        if capability and capability < CUDA_13_CAPABILITY:
            yield Finding(
                "ok",
                name,
                "gpu-architecture",
                f"{gpu.name} has compute capability {gpu.architecture}, CUDA 13 begins with 7.5: "
                "torch is taken for CUDA 12.6",
            )


def _judge_capability(name: str, gpus: list[Gpu]) -> Iterator[Finding]:
    """For builds that an old driver or another old GPU asks for."""
    for gpu in gpus:
        if parse_version(gpu.architecture) >= CUDA_12_6_END:
            yield Finding(
                "error",
                name,
                "gpu-architecture",
                f"{gpu.name} has compute capability {gpu.architecture}, which torch's builds for "
                "CUDA 12.6 do not know: they end with 9.0",
                "update its driver to 580 or newer; an older card beside it cannot train with it",
            )


def _judge_memory(name: str, gpus: list[Gpu]) -> Iterator[Finding]:
    for gpu in gpus:
        if gpu.memory_used_bytes and gpu.memory_used_bytes > USED_WARNING * gpu.memory_bytes:
            yield Finding(
                "warning",
                name,
                "gpu-memory",
                f"{format_bytes(gpu.memory_used_bytes)} of {format_bytes(gpu.memory_bytes)} of "
                f"{gpu.name} are in use",
                "end what else runs on it",
            )


def _count_by_name(gpus: list[Gpu]) -> str:
    names = [gpu.name for gpu in gpus]
    return ", ".join(
        name if names.count(name) == 1 else f"{names.count(name)} x {name}"
        for name in dict.fromkeys(names)
    )


def _describe(gpu: Gpu) -> str:
    parts = [gpu.name, format_bytes(gpu.memory_bytes) if gpu.memory_bytes else "shared memory"]
    if gpu.vendor == "nvidia":
        parts += [f"compute capability {gpu.architecture}"] if gpu.architecture else []
    else:
        parts += [part for part in (gpu.architecture, gpu.device_id) if part]
    parts += [f"driver {gpu.driver}"] if gpu.driver else []
    return ", ".join(parts)
