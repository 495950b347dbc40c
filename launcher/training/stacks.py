"""What the ranks of one host are doing, frozen ones too; and their end.

py-spy reads the memory of a process that need not answer. Where the kernel lets only parents do
that (Yama, Ubuntu's default), a rank has to have allowed it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PR_SET_PTRACER, ANY_PROCESS = 0x59616D61, -1  # prctl(2): of the same user, still
PY_SPY_TIMEOUT_SECONDS = 10.0
STOPPED_STATES = ("T", "t", "Z", "X")  # states of /proc: stopped, traced, dead
# In a line of a stack: torch's own collectives, and where nanochat waits for one under way.
COLLECTIVE_FRAMES = ("distributed_c10d.py", "finish (nanochat/exchange.py")


def allow_ptrace() -> None:
    """Let py-spy read this process. A kernel without Yama allows it anyway and returns an error."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY_PROCESS, 0, 0, 0)


def dump_and_kill(pids: Mapping[int, int]) -> dict[int, str]:
    """Return the text of each rank's stacks, then kill the ranks, stopped processes too.

    `pids`: process ids of the ranks on this host, by rank.
    """
    stacks = {rank: _describe(pid) for rank, pid in pids.items()}
    for pid in pids.values():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return stacks


def is_frozen(stacks: str) -> bool:
    """Whether this is the text of a process that does not run."""
    return stacks.startswith(tuple(f"state {state} " for state in STOPPED_STATES))


def is_in_collective(stacks: str) -> bool:
    """Whether a thread is inside a collective."""
    return any(frame in stacks for frame in COLLECTIVE_FRAMES)


def _describe(pid: int) -> str:
    proc = Path(f"/proc/{pid}")
    try:
        status = (proc / "status").read_text()
    except OSError:
        return "state X (no such process)\n"
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    try:
        wait_channel = (proc / "wchan").read_text() or "nothing"
    except OSError:
        wait_channel = "?"
    header = (
        f"state {fields['State'].strip()}  threads {fields['Threads']}  waits in {wait_channel}\n\n"
    )
    py_spy = Path(sys.executable).with_name("py-spy")
    command = [str(py_spy), "dump", "--nonblocking", "--pid", str(pid)]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=PY_SPY_TIMEOUT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{header}{error}\n"
    return header + (result.stdout or result.stderr)
