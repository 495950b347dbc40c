"""What an idle Ray worker does ahead of the actor it will become: it imports (3 s on two cores).

It also watches the driver of its run: an actor that waits inside C++ would outlive it.
"""

import gc

gc.disable()  # collections while importing cost a tenth of the time and free nothing

import os  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402

import ray.train.torch  # noqa: E402
import ray.train.v2._internal.execution.controller  # noqa: E402, F401

import launcher.training.worker  # noqa: E402, F401
from launcher.raycluster.local import DRIVER_PID  # noqa: E402


def end_with_driver(pid: int) -> None:
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(1)
    os._exit(1)


threading.Thread(target=end_with_driver, args=(int(os.environ[DRIVER_PID]),), daemon=True).start()
gc.freeze()
gc.enable()
