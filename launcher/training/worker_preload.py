"""What an idle Ray worker does ahead of the actor it will become: it imports (3 s on two cores).

A job's own process on the head needs none of it and is told so. In a run's private Ray the worker
also watches the driver: an actor that waits inside C++ would outlive it.
"""

import contextlib
import gc
import os
import threading
import time
from pathlib import Path

from launcher.raycluster.environment import DRIVER_PID_VARIABLE, JOB_VARIABLE

IDLE_NICENESS = 10

_imported_at: float | None = None  # of time.monotonic()


def import_ahead() -> None:
    global _imported_at
    gc.disable()  # collections while importing cost a tenth of the time and free nothing

    import launcher.training.worker  # noqa: F401

    gc.freeze()
    gc.enable()
    _imported_at = time.monotonic()


def seconds_since_import() -> float | None:
    """None where this process imported nothing ahead."""
    return None if _imported_at is None else time.monotonic() - _imported_at


def import_at_low_priority() -> None:
    """Beside a rank that trains: a tenth of the core and all its pauses, so that it is ready 40 s
    later at the latest. Not less: what is not ready when it is needed goes on at this priority.

    A thread of its own, for Linux gives each thread its priority, and an ordinary user's may not
    be raised again.
    """

    def import_idly() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), IDLE_NICENESS)
        import_ahead()

    thread = threading.Thread(target=import_idly)
    thread.start()
    thread.join()


def is_training_on_host() -> bool:
    """Whether a process of the same raylet is a rank."""
    for task in Path(f"/proc/{os.getppid()}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread or a process that has ended
            for pid in task.read_text().split():
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::RayTrainWorker"):
                    return True
    return False


def end_with_driver(pid: int) -> None:
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(1)
    os._exit(1)


if JOB_VARIABLE not in os.environ:
    if is_training_on_host():
        import_at_low_priority()
    else:
        import_ahead()
if driver := os.environ.get(DRIVER_PID_VARIABLE):
    threading.Thread(target=end_with_driver, args=(int(driver),), daemon=True).start()
