"""Environment variables that cap a process to an instruction set of x86 below its CPU's.

Three libraries compute for torch on a CPU, and each reads a variable of its own when it is first
used: ATen (elementwise kernels), MKL (float32 products; it obeys on Intel CPUs only) and oneDNN
(bfloat16 products). By hand, for the tests of one file:

    ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 \
        .venv/bin/pytest tests/nanochat/test_golden_losses.py
"""

from __future__ import annotations

import torch

# Fewest instructions first. AVX512 leaves out AMX and AVX512_BF16, which only bfloat16 uses.
CAPS = {
    "SSE": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
    },
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    },
    "AVX512": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
    },
}


def caps_below_this_cpu() -> list[str]:
    """Return the names of CAPS that take instructions away from this process; on ARM, none."""
    names, best = list(CAPS), torch.backends.cpu.get_cpu_capability()
    if best not in names:
        return []
    if best == "AVX512" and torch.cpu._is_avx512_bf16_supported():  # so has every CPU with AMX
        return names
    return names[: names.index(best)]
