"""What vendors' tools print becomes GPUs, and GPUs become findings.

The cases are put together from public reports of such machines (KFD's properties, the JSON of
amd-smi and rocm-smi, nvidia-smi's CSV and its two best known errors), none was captured by us.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_facts import captured

from launcher.hosts.gpu_preflight import Accelerator, judge_gpus
from launcher.hosts.gpus import Gpu, GpuFacts, gfx_name, parse_gpus, torch_build
from launcher.hosts.preflight import Finding

CASES = Path(__file__).with_name("gpu_cases")
HOST = captured("debian12")


def gpus_of(name: str) -> GpuFacts:
    sections: dict[str, list[str]] = {}
    for line in (CASES / f"{name}.txt").read_text().splitlines():
        if line.startswith("@"):
            current = sections.setdefault(line[1:], [])
        else:
            current.append(line)
    return parse_gpus(sections)


def findings(name: str, accelerator: Accelerator, wanted: int | None = None) -> list[Finding]:
    return list(judge_gpus("box", replace(HOST, gpus=gpus_of(name)), accelerator, wanted))


def test_an_rtx_4070() -> None:
    assert gpus_of("rtx4070") == GpuFacts(
        gpus=(
            Gpu(
                vendor="nvidia", name="NVIDIA GeForce RTX 4070", memory_bytes=12282 * 2**20,
                memory_used_bytes=327 * 2**20, driver="550.54.14", architecture="8.9",
            ),
        ),
        tool_errors={},
        pci_vendors=("nvidia",),
    )  # fmt: skip


def test_a_rented_mi300x() -> None:
    facts = gpus_of("mi300x_vf")
    assert facts.can_open_kfd is True and facts.pci_vendors == ("amd",)
    assert facts.of_vendor("amd") == [
        Gpu(
            vendor="amd", name="AMD Instinct MI300X VF", memory_bytes=205571227648,
            memory_used_bytes=None, driver="6.16.13", architecture="gfx942", device_id="0x74b5",
        )
    ]  # fmt: skip


def test_what_rocm_smi_adds_behind_its_warnings() -> None:
    [gpu] = gpus_of("mi300x_rocm_smi").gpus
    assert (gpu.name, gpu.driver, gpu.memory_used_bytes) == (
        "AMD Instinct MI300X", "6.8.5", 297517056,
    )  # fmt: skip


def test_the_kernel_alone_is_enough() -> None:
    [gpu] = gpus_of("no_tools").gpus
    assert (gpu.name, gpu.architecture) == ("AMD gfx90a (0x7408)", "gfx90a")
    assert gpu.memory_bytes == 68702699520


@pytest.mark.parametrize(
    ("version", "name"), [(90402, "gfx942"), (90010, "gfx90a"), (110501, "gfx1151")]
)
def test_architectures_are_called_as_compilers_call_them(version: int, name: str) -> None:
    assert gfx_name(version) == name


@pytest.mark.parametrize(
    ("case", "accelerator", "wanted", "said", "fix"),
    [
        ("rtx4070", "cpu", None, [("ok", "gpu", "NVIDIA GeForce RTX 4070: not used")], None),
        ("rtx4070", "cuda", 1,
         [("ok", "gpu", "RTX 4070, 12.9 GB, compute capability 8.9, driver 550.54.14"),
          ("ok", "gpu-driver", "driver 550.54.14 is older than CUDA 13: torch is taken for")],
         None),
        ("rtx4070", "cuda", 2,
         [("error", "gpu", "it has NVIDIA GeForce RTX 4070, but the cluster file says gpus: 2")],
         "write gpus: 1"),
        ("rtx4070", "rocm", None,
         [("error", "gpu", "accelerator is rocm, but it has no AMD GPU: it has NVIDIA")],
         "write accelerator: cuda"),
        ("two_old", "cuda", None,
         [("ok", "gpu", "Tesla P100-PCIE-16GB, 17.2 GB, driver"),
          ("error", "gpu-driver", "driver 470.256.02 is too old for any build of torch"),
          ("ok", "gpu-architecture", "has compute capability 6.0, CUDA 13 begins with 7.5"),
          ("warning", "gpu-memory", "15.7 GB of 17.2 GB")], "update it to 580 or newer"),
        ("mi300x_vf", "rocm", 1,
         [("ok", "gpu", "MI300X VF, 206 GB, gfx942, 0x74b5, driver 6.16.13")], None),
        ("mi300x_rocm_smi", "rocm", None, [("error", "gpu", "ada may not open /dev/kfd")],
         "sudo usermod -aG render,video ada"),
        ("mismatch", "cuda", None, [("error", "gpu", "nvidia-smi says: Failed to initialize")],
         "reboot it"),
        ("no_driver", "cuda", None, [("error", "gpu", "an NVIDIA card is on its bus")],
         "install NVIDIA's driver"),
        ("mi300x_vf", "cuda", None, [("error", "gpu", "has no NVIDIA GPU: it has AMD Instinct")],
         "write accelerator: rocm"),
    ],
)  # fmt: skip
def test_what_is_found(
    case: str, accelerator: Accelerator, wanted: int | None, said: list[tuple[str, str, str]],
    fix: str | None,
) -> None:  # fmt: skip
    found = findings(case, accelerator, wanted)
    assert [(each.severity, each.code) for each in found] == [(s, code) for s, code, _ in said]
    for each, (_, _, words) in zip(found, said, strict=True):
        assert words in each.message
    fixes = [each.fix for each in found if each.fix]
    assert (fix is None and not fixes) or (fix is not None and fix in fixes[0])


def test_the_build_of_torch_follows_driver_and_gpu() -> None:
    old = gpus_of("rtx4070")
    assert torch_build(old) == "cu126"
    new = [replace(gpu, driver="580.95.05") for gpu in old.gpus]
    assert torch_build(GpuFacts(tuple(new))) == ""
    volta = replace(new[0], architecture="7.0")
    assert torch_build(GpuFacts((new[0], volta))) == "cu126"
    assert torch_build(GpuFacts((replace(new[0], driver=None, architecture=None),))) == ""
    assert torch_build(gpus_of("mi300x_vf")) == torch_build(GpuFacts()) == ""


def test_a_host_without_any_and_without_need_has_nothing_to_say() -> None:
    assert list(judge_gpus("box", HOST, "cpu", None)) == []
    [finding] = judge_gpus("box", HOST, "cuda", None)
    assert (finding.severity, finding.fix) == ("error", "write accelerator: cpu")


def test_a_new_gpu_and_an_old_driver_go_together_with_no_build() -> None:
    """CUDA 12.6 ends with compute capability 9.0."""
    [card] = gpus_of("rtx4070").gpus
    blackwell = replace(
        card, name="NVIDIA GeForce RTX 5070", driver="570.133.07", architecture="12.0"
    )
    found = list(judge_gpus("box", replace(HOST, gpus=GpuFacts((blackwell,))), "cuda", None))
    [error] = [each for each in found if each.severity == "error"]
    assert error.fix and error.fix.startswith("update its driver to 580")
    pascal = replace(card, name="old", driver="580.95.05", architecture="6.1")
    both = GpuFacts((replace(blackwell, driver="580.95.05"), pascal))
    found = list(judge_gpus("box", replace(HOST, gpus=both), "cuda", None))
    assert "error" in {each.severity for each in found}


def test_a_gpu_that_shares_the_machines_memory() -> None:
    line = "0, NVIDIA GB10, [N/A], [N/A], 580.95.05, 12.1"
    facts = parse_gpus({"nvidia": [line]})
    [finding] = judge_gpus("box", replace(HOST, gpus=facts), "cuda", None)
    assert finding.severity == "ok" and "NVIDIA GB10, shared memory" in finding.message


def test_memory_that_our_own_run_uses_is_no_warning() -> None:
    [card] = gpus_of("rtx4070").gpus
    busy = replace(HOST, gpus=GpuFacts((replace(card, memory_used_bytes=9 * 10**9),)))
    assert "gpu-memory" in {each.code for each in judge_gpus("box", busy, "cuda", None)}
    ours = judge_gpus("box", busy, "cuda", None, is_up=True)
    assert "gpu-memory" not in {each.code for each in ours}
