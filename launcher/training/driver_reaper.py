"""The process above a driver: when the driver ends, however it ends, nothing of its Ray is left.

Ray's own processes watch each other, but not all of them: after kill -9 of a driver its
controller stays for good and agents for minutes. So the reaper adopts whatever loses its parent
below it (PR_SET_CHILD_SUBREAPER), and ends it by process id. It imports nothing large and does
nothing while the driver lives.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from launcher.agent.processes import adopt_orphans, kill_children

RAY_FOLDER_PREFIX = "launch-ray-"


def main(run_folder: str) -> None:
    """Run the driver to its end, clean up below it, and exit with its code."""
    adopt_orphans()
    remove_orphaned_folders()
    # Short, for the names of sockets inside may have 107 characters.
    ray_folder = tempfile.mkdtemp(prefix=f"{RAY_FOLDER_PREFIX}{os.getpid()}-", dir="/tmp")
    try:
        driver = subprocess.Popen(
            [sys.executable, "-P", "-m", "launcher.training.driver", run_folder, ray_folder]
        )
        signal.signal(signal.SIGTERM, lambda *_: driver.terminate())
        code = driver.wait()
        kill_children()
    finally:
        shutil.rmtree(ray_folder, ignore_errors=True)
    sys.exit(code if code >= 0 else 128 - code)


def remove_orphaned_folders() -> None:
    """Remove what reapers that were killed themselves have left in /tmp."""
    for folder in Path("/tmp").glob(f"{RAY_FOLDER_PREFIX}*-*"):
        pid = folder.name.removeprefix(RAY_FOLDER_PREFIX).partition("-")[0]
        alive = Path("/proc", pid).exists() or not pid.isdigit()
        with contextlib.suppress(OSError):  # another reaper may be quicker
            if not alive and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
