"""Two machines for the tests of this folder, booted once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import SSHD, Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    if os.geteuid() != 0 or not Path(SSHD).exists() or shutil.which("ip") is None:
        pytest.skip("test hosts need root, openssh-server and iproute2")
    # Not under /tmp: the hosts have one of their own over it.
    folder = Path(tempfile.mkdtemp(prefix="launch-lab-", dir="/var/tmp"))
    made = Lab(folder)
    try:
        made.add("one", core=0)
        made.add("two", core=min(1, len(os.sched_getaffinity(0)) - 1))
        yield made
    finally:
        made.close()
