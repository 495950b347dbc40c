"""What an idle Ray worker does ahead of the actor it will become: it imports (3 s on two cores).

A job's own process on the head needs none of it and is told so. In a run's private Ray the worker
also watches the driver: an actor that waits inside C++ would outlive it.
"""

import gc
import os
import threading
import time

from launcher.raycluster.environment import JOB_MARK
from launcher.raycluster.local import DRIVER_PID


def import_ahead() -> None:
    gc.disable()  # collections while importing cost a tenth of the time and free nothing

    import launcher.training.worker  # noqa: F401

    gc.freeze()
    gc.enable()


def end_with_driver(pid: int) -> None:
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(1)
    os._exit(1)


if JOB_MARK not in os.environ:
    import_ahead()
if driver := os.environ.get(DRIVER_PID):
    threading.Thread(target=end_with_driver, args=(int(driver),), daemon=True).start()
