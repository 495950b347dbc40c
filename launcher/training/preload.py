"""What an idle Ray worker imports ahead of the actor it will become (3 s on two cores)."""

import gc

gc.disable()  # collections while importing cost a tenth of the time and free nothing

import ray.train.torch  # noqa: E402
import ray.train.v2._internal.execution.controller  # noqa: E402, F401

import launcher.training.worker  # noqa: E402, F401

gc.freeze()
gc.enable()
