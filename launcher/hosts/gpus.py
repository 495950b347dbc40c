"""The GPUs of a host: a part of the script of facts, and a parser for each tool that reports them.

NVIDIA's are reported by nvidia-smi, which comes with the driver. AMD's are those of the kernel's
compute driver (KFD), without any tool; amd-smi or rocm-smi, where there is one, has their names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Vendor = Literal["nvidia", "amd"]

# `timeout`: a driver in trouble lets its tool hang. /usr/lib/wsl/lib: Windows' nvidia-smi.
GPU_SCRIPT = r"""
PATH="$PATH:/usr/lib/wsl/lib:/opt/rocm/bin"
say nvidia
command -v nvidia-smi >/dev/null && timeout 8 nvidia-smi --format=csv,noheader,nounits \
  --query-gpu=index,name,memory.total,memory.used,driver_version,compute_cap 2>&1
say kfd
for node in /sys/class/kfd/kfd/topology/nodes/[0-9]*; do
  [ -e "$node" ] && echo node && cat "$node/properties" "$node"/mem_banks/*/properties
done 2>/dev/null | grep -E \
  '^(node|gfx_target_version|vendor_id|device_id|heap_type|size_in_bytes)( |$)'
say amdgpu; cat /sys/module/amdgpu/version 2>/dev/null
if [ -e /dev/kfd ]; then
  if command -v amd-smi >/dev/null; then
    say amd-smi; timeout 8 amd-smi static --asic --vram --driver --json 2>&1
  elif command -v rocm-smi >/dev/null; then
    say rocm-smi
    timeout 8 rocm-smi --showproductname --showmeminfo vram --showdriverversion --json 2>&1
  fi
  say kfd-access; [ -r /dev/kfd ] && [ -w /dev/kfd ] && echo yes
fi
say pci
for device in /sys/bus/pci/devices/*; do
  read -r class < "$device/class"
  case $class in 0x03*|0x12*) read -r vendor < "$device/vendor"; echo "$vendor" ;; esac
done 2>/dev/null
"""
# CUDA 13 wants this driver (CUDA 13.0 release notes, table 3) and, as it dropped what is older,
# this compute capability; any CUDA 12 runs with drivers from 525.60.13 on.
CUDA_13_DRIVER, CUDA_12_DRIVER = (580,), (525, 60, 13)
CUDA_13_CAPABILITY = (7, 5)
CUDA_12_6_END = (10, 0)  # its builds are for less
VENDOR_BY_PCI_ID: dict[str, Vendor] = {"0x10de": "nvidia", "0x1002": "amd"}
AMD_VENDOR_ID = "4098"  # as KFD writes it
GPU_HEAPS = ("1", "2")  # of KFD's memory banks: the GPU's own, visible to the CPU or not
# What AMD's tools call these where they know no name; the second is what a rented MI300X is.
AMD_NAMES = {"0x74a1": "AMD Instinct MI300X", "0x74b5": "AMD Instinct MI300X VF"}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """`architecture`: 8.9 (compute capability) or gfx942. `device_id`: of PCI, AMD's only."""

    vendor: Vendor
    name: str
    memory_bytes: int
    memory_used_bytes: int | None
    driver: str | None
    architecture: str | None
    device_id: str | None = None


@dataclass(frozen=True)
class GpuFacts:
    """The GPUs of one host, and why some may be missing."""

    gpus: tuple[Gpu, ...] = ()
    tool_errors: Mapping[Vendor, str] | None = None
    """What a vendor's tool printed instead of GPUs."""
    pci_vendors: tuple[Vendor, ...] = ()
    """Vendors of the graphics cards and accelerators on the PCI bus, with or without a driver."""
    can_open_kfd: bool | None = None
    """Whether the login may open AMD's compute device; None without one."""

    def of_vendor(self, vendor: Vendor) -> list[Gpu]:
        return [gpu for gpu in self.gpus if gpu.vendor == vendor]


def torch_build(facts: GpuFacts) -> str:
    """cu126 where an NVIDIA GPU or its driver is too old for CUDA 13, which PyTorch's usual builds
    are for; else empty."""
    for gpu in facts.of_vendor("nvidia"):
        driver, capability = parse_version(gpu.driver), parse_version(gpu.architecture)
        if (driver and driver < CUDA_13_DRIVER) or (capability and capability < CUDA_13_CAPABILITY):
            return "cu126"
    return ""


def parse_version(text: str | None) -> tuple[int, ...]:
    """Empty where it is none."""
    parts = (text or "").split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else ()


def parse_gpus(sections: Mapping[str, Sequence[str]]) -> GpuFacts:
    """`sections`: by name, the lines that the script printed."""
    nvidia, error = _nvidia(sections.get("nvidia", ()))
    amd = list(_kfd(sections.get("kfd", ())))
    reported = [
        *_amd_smi("\n".join(sections.get("amd-smi", ()))),
        *_rocm_smi("\n".join(sections.get("rocm-smi", ()))),
    ]
    driver = next(iter(sections.get("amdgpu", ())), None)
    amd = [_with_reported(gpu, reported, driver) for gpu in amd] if amd else reported
    access, pci = sections.get("kfd-access"), sections.get("pci", ())
    return GpuFacts(
        gpus=(*nvidia, *amd),
        tool_errors={"nvidia": error} if error else {},
        pci_vendors=tuple(dict.fromkeys(VENDOR_BY_PCI_ID[v] for v in pci if v in VENDOR_BY_PCI_ID)),
        can_open_kfd=None if access is None else "yes" in access,
    )


def _nvidia(lines: Sequence[str]) -> tuple[list[Gpu], str | None]:
    """Lines `0, NVIDIA GeForce RTX 4070, 12282, 5, 550.54.14, 8.9`, memory in MiB, [N/A] where the
    GPU has the machine's; else a message."""
    gpus, messages = [], []
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 6 and (cells[2].isdigit() or cells[2] == "[N/A]"):
            used = int(cells[3]) * 2**20 if cells[3].isdigit() else None
            gpus.append(
                Gpu(
                    vendor="nvidia", name=cells[1],
                    memory_bytes=int(cells[2]) * 2**20 if cells[2].isdigit() else 0,
                    memory_used_bytes=used, driver=cells[4], architecture=_decimal(cells[5]),
                )
            )  # fmt: skip
        else:
            messages.append(line)
    return gpus, None if gpus or not messages else " ".join(messages)


def _decimal(text: str) -> str | None:
    """Drivers of before 2022 do not know the query and say so in its place."""
    return text if re.fullmatch(r"\d+\.\d+", text) else None


def _kfd(lines: Sequence[str]) -> Iterator[Gpu]:
    """Of each node its properties and those of its memory; CPUs are nodes too."""
    nodes: list[list[tuple[str, str]]] = []
    for line in lines:
        key, _, value = line.partition(" ")
        if key == "node":
            nodes.append([])
        elif nodes:
            nodes[-1].append((key, value))
    for node in nodes:
        known = dict(node)
        version = known.get("gfx_target_version", "0")
        if known.get("vendor_id") != AMD_VENDOR_ID or version == "0":
            continue
        device = f"{int(known['device_id']):#06x}"
        architecture = gfx_name(int(version))
        yield Gpu(
            vendor="amd", name=AMD_NAMES.get(device, f"AMD {architecture} ({device})"),
            memory_bytes=_heap_bytes(node), memory_used_bytes=None, driver=None,
            architecture=architecture, device_id=device,
        )  # fmt: skip


def _heap_bytes(node: Sequence[tuple[str, str]]) -> int:
    """Of the banks of its own memory: a `size_in_bytes` belongs to the `heap_type` before it."""
    heap, total = "", 0
    for key, value in node:
        if key == "heap_type":
            heap = value
        elif key == "size_in_bytes" and heap in GPU_HEAPS:
            total += int(value)
    return total


def gfx_name(version: int) -> str:
    """90402 -> gfx942, 90010 -> gfx90a: two decimal digits each, the last two written in hex."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def _amd_smi(text: str) -> Iterator[Gpu]:
    """`amd-smi static --asic --vram --driver --json`: a list, from ROCm 7 on inside an object."""
    document = _parse_json(text)
    if isinstance(document, dict):
        document = document.get("gpu_data", [])
    for item in document if isinstance(document, list) else ():
        asic, vram = item.get("asic", {}), item.get("vram", {})
        size = vram.get("size", {})
        unit = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30}.get(_text(size, "unit"), 0)
        yield Gpu(
            vendor="amd", name=_text(asic, "market_name"),
            memory_bytes=int(_text(size, "value") or 0) * unit, memory_used_bytes=None,
            driver=_text(item.get("driver", {}), "version") or None,
            architecture=_text(asic, "target_graphics_version") or None,
            device_id=_text(asic, "device_id").lower() or None,
        )  # fmt: skip


def _rocm_smi(text: str) -> Iterator[Gpu]:
    """`rocm-smi --showproductname --showmeminfo vram --showdriverversion --json`: card0, card1,
    ..., system; its keys were written in another case before ROCm 6."""
    document = _parse_json(text)
    cards = document if isinstance(document, dict) else {}
    driver = _text(_lower_keys(cards.get("system", {})), "driver version")
    for name, card in cards.items():
        if not re.fullmatch(r"card\d+", name) or not isinstance(card, dict):
            continue
        card = _lower_keys(card)
        used = _text(card, "vram total used memory (b)")
        yield Gpu(
            vendor="amd", name=_text(card, "card series"),
            memory_bytes=int(_text(card, "vram total memory (b)") or 0),
            memory_used_bytes=int(used) if used else None,
            driver=driver or None,
            architecture=_text(card, "gfx version") or None,
            device_id=_text(card, "card model").lower() or None,
        )  # fmt: skip


def _with_reported(gpu: Gpu, reported: Sequence[Gpu], driver: str | None) -> Gpu:
    """With what a tool reported of a GPU of the same kind."""
    for item in reported:
        if item.device_id in (gpu.device_id, None):
            return replace(
                gpu,
                name=item.name or gpu.name,
                memory_bytes=gpu.memory_bytes or item.memory_bytes,
                memory_used_bytes=item.memory_used_bytes,
                driver=item.driver or driver,
            )
    return replace(gpu, driver=driver)


def _parse_json(text: str) -> Any:
    """Warnings may stand before it."""
    for match in re.finditer(r"^[\[{]", text, re.MULTILINE):
        try:
            return json.loads(text[match.start() :])
        except ValueError:
            continue
    return None


def _lower_keys(card: Mapping[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in card.items()}


def _text(mapping: Any, key: str) -> str:
    """Empty where it is missing, as a tool writes it too: N/A."""
    value = str(mapping.get(key, "")) if isinstance(mapping, Mapping) else ""
    return "" if value == "N/A" else value
