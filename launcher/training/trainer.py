"""Ray Train's TorchTrainer on a run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, LoggingConfig, Result, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroupPollStatus

from launcher.config.paths import launch_home
from launcher.errors import LaunchError, RunFailed
from launcher.runs.events import EventLog, StartEvent, read_events
from launcher.runs.failure import Failure
from launcher.runs.folder import RunFolder
from launcher.runs.state import count_attempts
from launcher.training.device import choose_device
from launcher.training.failure_policy import RunCancelled, RunFailurePolicy, non_retryable_error
from launcher.training.live_nodes import RunNodes
from launcher.training.process_group import RankedTorchConfig
from launcher.training.recovery_controller import RecoveryController
from launcher.training.scaling_policy import LiveNodesPolicy, ended_for_regroup
from launcher.training.session import NODE_ID, Session
from launcher.training.watchdog import Watchdog
from launcher.training.worker import train_loop
from launcher.training.worker_group import RunWorkerGroup

# A rank that waits this long for another one is waiting for a dead or hanging one.
GROUP_TIMEOUT_SECONDS = 300
# Deaths of workers, and groups that come to nothing, that one start of a run survives: many
# nights, but not for ever.
MAX_FAILURES = 100


def train_run(run_folder: str, session: Session) -> Failure | None:
    """Choose the hardware and train to the end. Returns what went wrong, or None.

    Workers that die are started again by Ray, up to MAX_FAILURES times.
    """
    folder = RunFolder(Path(run_folder))
    try:
        spec = folder.spec()
        device = choose_device(spec.recipe, session, spec.tuning)
        folder.update_spec(**device.as_json())
        with EventLog(folder.events) as events:
            events.write(StartEvent.now(stage="hardware", **device.as_json()))
        _fit(folder, session)
    except LaunchError as error:
        return Failure(message=error.message, fix=error.fix)
    return None


def _fit(folder: RunFolder, session: Session) -> None:
    """Raises RunFailed if a worker raised NonRetryableError, or if Ray itself gives up."""
    spec = folder.spec()
    nodes = tuple(node.name for node in session.nodes)
    recovery = RecoveryController(folder.path, nodes)
    watchdog = Watchdog(folder.path, nodes, recovery, profile=session.profile)
    trainer = RunTrainer(
        train_loop,
        train_loop_config={
            "run": str(folder.path.relative_to(launch_home())),
            "spec": spec,
            "submitted": time.time(),
            "attempts_before": count_attempts(read_events(folder.events)),
            "export_metrics": session.export_metrics,
        },
        scaling_config=ScalingConfig(
            num_workers=sum(node.ranks_per_node for node in session.nodes),
            resources_per_worker=session.resources,
            placement_strategy="SPREAD",
        ),
        run_config=RunConfig(
            name=folder.name,
            storage_path=session.storage_path,  # for Ray's own notes: no checkpoint goes through it
            failure_config=FailureConfig(
                max_failures=MAX_FAILURES, controller_failure_limit=MAX_FAILURES
            ),
            logging_config=LoggingConfig(log_level="ERROR"),
            callbacks=[recovery, watchdog],
        ),
        torch_config=RankedTorchConfig(
            backend="nccl" if spec.device == "cuda" else "gloo",
            timeout_s=GROUP_TIMEOUT_SECONDS,
            nodes=nodes,
        ),
    )
    if any(nodes):  # on a cluster
        trainer.nodes = RunNodes(folder, nodes, elastic=spec.recipe.elastic)
    try:
        trainer.fit()
    except RunCancelled:
        return
    except ray.train.TrainingFailedError as error:
        if failure := non_retryable_error(error):
            raise RunFailed(failure.message, fix=failure.fix) from error
        raise RunFailed(f"Ray Train gave up: {error}", fix=f"see {folder.log}") from error


class RunTrainer(TorchTrainer):
    """TorchTrainer without what a cluster of fixed size that trains one run has no use for.

    It overrides two private methods of Ray 2.60.0, the version that is pinned, because they hold
    6 of the 9 s that this start-up saves: an actor with environment variables of its own cannot
    begin in a preloaded worker, and every extra actor imports for seconds on two cores. Left out
    are the actor that frees placement groups of a dead controller, for they end with the driver,
    and the one that shares out a cluster between trainers, for workers ask for slots.

    `nodes`: of a cluster's run.
    """

    nodes: RunNodes | None = None

    def _create_default_callbacks(self) -> list[Any]:
        unneeded = (PlacementGroupCleanerCallback, DatasetsCallback)
        return [c for c in super()._create_default_callbacks() if not isinstance(c, unneeded)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        arguments["nodes"] = self.nodes
        this_node = {NODE_ID: ray.get_runtime_context().get_node_id()}
        controller = ray.remote(num_cpus=0, label_selector=this_node)(_Controller).remote(
            **arguments
        )
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
    worker_group_cls = RunWorkerGroup

    def __init__(self, *, nodes: RunNodes | None, **options: Any) -> None:
        config = options["train_run_context"]
        options["failure_policy"] = RunFailurePolicy(config.run_config.failure_config, nodes)
        if nodes is None:
            options["scaling_policy"] = _FixedPolicy(config.scaling_config)
        else:
            options["scaling_policy"] = LiveNodesPolicy(config.scaling_config, nodes)
        super().__init__(**options)
        for name in ENV_VARS_TO_PROPAGATE:  # read by now; else they become the workers' own
            os.environ.pop(name, None)
        # One of these switches off a warning about Ray Train's own code, in every run's log.
        ray._private.worker.blocking_get_inside_async_warned = True

    @staticmethod
    def _is_training_succeeded(worker_group_status: WorkerGroupPollStatus) -> bool:
        succeeded: bool = TrainController._is_training_succeeded(worker_group_status)
        return succeeded and not ended_for_regroup(worker_group_status)
