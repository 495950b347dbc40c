"""Run the numeric tests again, capped to the two largest instruction sets below this CPU's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from instruction_sets import CAPS, caps_below_this_cpu

FOLDER = Path(__file__).parent
NUMERIC_TESTS = (
    "test_exchange.py",
    "test_golden_losses.py",
    "test_golden_upstream.py",
    "test_loss.py",
    "test_model.py",
    "test_optimizer.py",
)
# These take longer than all others together and pass through the same kernels; side by side, tests
# of two threads spend most of their time waiting for a core.
LEFT_OUT = "not d8 and not d4-2 and not losses_of_two_ranks"
MOST_CAPS = 2  # on SSE the tests take three times as long as on AVX2
SECONDS = 600.0
CAPABILITIES = {"SSE": "DEFAULT", "AVX2": "AVX2", "AVX512": "AVX512"}  # what torch calls them


@pytest.mark.parametrize("cap", caps_below_this_cpu())
def test_aten_obeys_a_cap(cap: str) -> None:
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **CAPS[cap]}, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert result.stdout.strip() == CAPABILITIES[cap], result.stderr


@pytest.mark.parametrize("cap", caps_below_this_cpu()[-MOST_CAPS:])
def test_numeric_tests_pass_with_fewer_instructions(cap: str) -> None:
    tests = [str(FOLDER / name) for name in NUMERIC_TESTS]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", LEFT_OUT, *tests],
        cwd=FOLDER.parents[1],
        env={**os.environ, **CAPS[cap]},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
