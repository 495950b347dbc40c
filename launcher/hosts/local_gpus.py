"""The GPUs of this machine, asked as hosts are."""

from __future__ import annotations

import functools
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from launcher.hosts.facts import SECTION_FUNCTION, parse_sections
from launcher.hosts.gpus import GPU_SCRIPT, GpuFacts, parse_gpus

DEVICES = ("/dev/nvidia0", "/dev/kfd")
GPU_TOOL_SECONDS = 20.0


def has_gpu() -> bool:
    """Whether a driver has one."""
    return any(Path(device).exists() for device in DEVICES)


def local_torch_version() -> str:
    """Its version with its build (`2.13.0+cpu`); "" where it is not installed."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


@functools.cache  # `launch recipe` asks for its plan and for its choices, and a tool takes a second
def find_local_gpus() -> GpuFacts:
    """None of them where no driver has one, its tool hangs, or torch is a build for CPUs."""
    if not has_gpu() or local_torch_version().endswith("+cpu"):
        return GpuFacts()
    try:
        done = subprocess.run(
            ["sh", "-c", SECTION_FUNCTION + GPU_SCRIPT],
            capture_output=True,
            text=True,
            timeout=GPU_TOOL_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return GpuFacts()
    return parse_gpus(parse_sections(done.stdout))
