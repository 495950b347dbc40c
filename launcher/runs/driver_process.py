"""The driver of a run on this machine, as the command that starts it sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from launcher.config.paths import launch_home
from launcher.errors import RunFailed
from launcher.runs.folder import RunFolder

START_SECONDS = 60.0


class DriverProcess:
    """The driver of a run as this process sees it. It has its own session: Ctrl-C is ours alone."""

    def __init__(self, folder: RunFolder, *, detach: bool) -> None:
        """Start it and wait until it holds the run's folder. Raises RunFailed where it dies first.

        Attached, it takes the closing of its standard input for our death, and stops the run.
        """
        folder.stop_request.unlink(missing_ok=True)
        self.folder = folder
        with folder.log.open("ab") as log:
            self.process = subprocess.Popen(
                # -P: a folder named nanochat or launcher in the user's own place is not ours.
                [sys.executable, "-P", "-m", "launcher.training", str(folder.path)],
                stdin=subprocess.DEVNULL if detach else subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder.path,
                env={
                    **os.environ,
                    "PYTHONSAFEPATH": "1",
                    "PYTHONUNBUFFERED": "1",
                    "LAUNCH_HOME": str(launch_home()),
                },
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not folder.is_locked():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RunFailed("the driver of the run did not start", fix=f"see {folder.log}")
            time.sleep(0.02)

    def terminate(self) -> None:
        """Without a checkpoint."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait()
