"""Ray Train's TorchTrainer on a run of this machine."""

from __future__ import annotations

import os
import time
from typing import Any

import ray
from ray.train import FailureConfig, LoggingConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy

from launcher.config.recipe import Recipe
from launcher.errors import RunFailed
from launcher.runs.folder import RunFolder
from launcher.training.worker import count_attempts, train_loop

# A rank that waits this long for another one is waiting for a dead or hanging one.
GROUP_TIMEOUT_SECONDS = 300
# Deaths of workers that one start of a run survives: many nights, but not for ever.
MAX_FAILURES = 100


def fit(folder: RunFolder, recipe: Recipe, *, ray_folder: str) -> None:
    """Train to the end. Workers that die are started again by Ray, up to MAX_FAILURES times.

    Raises RunFailed where Ray itself gives up.
    """
    backend = "nccl" if folder.spec()["device"] == "cuda" else "gloo"
    trainer = LocalTrainer(
        train_loop,
        train_loop_config={
            "folder": str(folder.path),
            "submitted": time.time(),
            "attempts_before": count_attempts(folder),
        },
        scaling_config=ScalingConfig(
            num_workers=recipe.workers, resources_per_worker={"rank_slot": 1}
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=ray_folder,  # for Ray's own notes: no checkpoint goes through it
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
        torch_config=TorchConfig(backend=backend, timeout_s=GROUP_TIMEOUT_SECONDS),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise RunFailed(f"Ray Train gave up: {error}", fix=f"see {folder.log}") from error


class LocalTrainer(TorchTrainer):
    """TorchTrainer without what a private cluster of fixed size has no use for.

    It overrides two private methods of Ray 2.60.0, the version that is pinned, because they hold
    6 of the 9 s that this start-up saves: an actor with environment variables of its own cannot
    begin in a preloaded worker, and every extra actor imports for seconds on two cores. Left out
    are the actor that frees placement groups of a dead controller and the one that shares out a
    cluster between trainers: this cluster ends with its only trainer.
    """

    def _create_default_callbacks(self) -> list[Any]:
        unneeded = (PlacementGroupCleanerCallback, DatasetsCallback)
        return [c for c in super()._create_default_callbacks() if not isinstance(c, unneeded)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        arguments["scaling_policy"] = _FixedPolicy(self.scaling_config)
        controller = ray.remote(num_cpus=0)(_Controller).remote(**arguments)
        ray.get(controller.run.remote())
        result: Result = ray.get(controller.get_result.remote())
        return result


class _FixedPolicy(FixedScalingPolicy):
    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass

    def _cancel_resource_request(self) -> None:
        pass


class _Controller(TrainController):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        for name in ENV_VARS_TO_PROPAGATE:  # read by now; else they become the workers' own
            os.environ.pop(name, None)
