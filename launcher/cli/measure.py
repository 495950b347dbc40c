"""`launch measure`: what the machines can do, by a run that measures before it trains."""

from __future__ import annotations

import click

from launcher.cli.attach import start_local_run, submit_cluster_run
from launcher.cli.main import ENTERED
from launcher.cli.options import json_option
from launcher.cli.render.bring_up import BringUpView
from launcher.cli.render.measurement import print_measurement
from launcher.cli.render.table import print_json
from launcher.errors import Interrupted
from launcher.operations.await_run import require_summary
from launcher.operations.measure import STEPS, measuring_recipe, remove_measuring_run
from launcher.operations.open_cluster import open_cluster
from launcher.operations.run_location import RunLocation
from launcher.operations.start_run import create_remote_run
from launcher.planner.measurement import finished_measurement, save_measurement
from launcher.planner.size_table import find_size
from launcher.runs.folder import create_run
from launcher.runs.remove import LocalRemoval
from launcher.runs.run import Run, run_address
from launcher.runs.spec import BenchmarkRequest, RunSpec, Tuning, new_run_spec
from launcher.runs.training_requirements import require_training_packages


@click.command()
@click.option("--cluster", default="local", show_default=True, metavar="C", help="Which machines.")
@click.option("--pool", metavar="P", help="The hosts of one pool of the cluster only.")
@click.option(
    "--size", "sizes", multiple=True, metavar="NAME",
    help="Time the parts of this size; several, small ones first. Else d4, d8 and d12, on GPUs d20 "
    "and d24 too.",
)  # fmt: skip
@click.option(
    "--recipe", "recipe", default="d4", show_default=True, metavar="NAME",
    help=f"Whose {STEPS} steps are timed at the end.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Do not remove the run that has measured.")
@json_option
def command(
    cluster: str, pool: str | None, sizes: tuple[str, ...], recipe: str, keep: bool, as_json: bool
) -> None:
    """Measure processors, memory, disks and links as training uses them, in a minute or two.

    From then on `launch recipe` chooses threads, shares and passes by it.
    """
    loaded, location = measuring_recipe(recipe, cluster, pool)
    models = tuple(find_size(name).model for name in sizes)
    spec = new_run_spec(loaded, cluster=location.cluster, entered=ENTERED)
    spec = spec.with_changes(benchmark=BenchmarkRequest(models=models))
    if location.loaded is not None:
        _measure_cluster(location, spec, keep=keep, as_json=as_json)
        return
    require_training_packages("launch measure")
    folder = create_run(None, "measure", spec)
    click.echo("measuring this machine, and nothing else should run on it meanwhile", err=True)
    start_local_run(folder, detach=False, as_json=as_json, report=save_and_print)
    if not keep:
        LocalRemoval.of(folder, folder.name).remove()


def _measure_cluster(location: RunLocation, spec: RunSpec, *, keep: bool, as_json: bool) -> None:
    assert location.loaded is not None
    view = BringUpView()
    with open_cluster(location.loaded, location.pool, observer=view) as cluster:
        run = create_remote_run(cluster, "measure", location.pool, spec, None, Tuning())
        try:
            submit_cluster_run(
                run, cluster, view, detach=False, as_json=as_json, report=save_and_print
            )
        except Interrupted:
            run.request_stop()
            raise _stopped(run) from None
        if not keep:
            remove_measuring_run(cluster, run)


def save_and_print(run: Run, *, as_json: bool) -> None:
    """Save what was measured, and print it."""
    summary = require_summary(run)
    if summary.status != "finished":
        raise _stopped(run)
    measurement = finished_measurement(run.folder)
    save_measurement(measurement)
    if as_json:
        print_json(measurement.model_dump(mode="json"))
    else:
        print_measurement(measurement)


def _stopped(run: Run) -> Interrupted:
    return Interrupted(
        "measuring was stopped: nothing is saved",
        fix=f"launch runs remove {run_address(run)}   takes away what is left of it",
    )
