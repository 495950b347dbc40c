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
SPY_SECONDS = 10.0
STOPPED = ("T", "t", "Z", "X")  # states of /proc: stopped, traced, dead
# In a line of a stack: torch's own collectives, and where nanochat waits for one under way.
COLLECTIVES = ("distributed_c10d.py", "finish (nanochat/exchange.py")


def allow_stacks() -> None:
    """Of this process; a kernel without Yama allows it anyway and says that it knows no such."""
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY_PROCESS, 0, 0, 0)


def collect_and_end(pids: Mapping[int, int]) -> dict[int, str]:
    """The text of each rank's stacks. `pids`: of ranks on this host, by rank; they are killed,
    which ends a stopped process too."""
    stacks = {rank: _describe(pid) for rank, pid in pids.items()}
    for pid in pids.values():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return stacks


def is_frozen(stacks: str) -> bool:
    """Whether it is the text of a process that does not run."""
    return stacks.startswith(tuple(f"state {state} " for state in STOPPED))


def waits_for_others(stacks: str) -> bool:
    """Whether a thread is inside a collective."""
    return any(word in stacks for word in COLLECTIVES)


def _describe(pid: int) -> str:
    proc = Path(f"/proc/{pid}")
    try:
        status = (proc / "status").read_text()
    except OSError:
        return "state X (no such process)\n"
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    try:
        waits_in = (proc / "wchan").read_text() or "nothing"
    except OSError:
        waits_in = "?"
    head = f"state {fields['State'].strip()}  threads {fields['Threads']}  waits in {waits_in}\n\n"
    spy = Path(sys.executable).with_name("py-spy")
    command = [str(spy), "dump", "--nonblocking", "--pid", str(pid)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SPY_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{head}{error}\n"
    return head + (done.stdout or done.stderr)
