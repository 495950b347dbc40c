"""`launch measure`: what the machines can do, by a run that measures before it trains."""

from __future__ import annotations

import click

from launcher.cli.attach import require_summary, run_local, submit
from launcher.cli.main import ENTERED
from launcher.cli.options import json_option
from launcher.cli.render.bring_up import BringUpView
from launcher.cli.render.table import Column, Row, print_json, print_table
from launcher.config.paths import format_path
from launcher.errors import Interrupted
from launcher.operations.measure import STEPS, measuring_recipe, remove_measuring_run
from launcher.operations.open_cluster import open_cluster
from launcher.operations.run_location import RunLocation
from launcher.operations.start_run import create_remote_run
from launcher.planner.measurement import (
    Measurement,
    finished_measurement,
    measurement_file,
    save_measurement,
)
from launcher.planner.size_table import find_size
from launcher.runs.folder import create_run
from launcher.runs.remove import LocalRemoval
from launcher.runs.run import Run, run_address
from launcher.runs.spec import BenchmarkRequest, RunSpec, Tuning
from launcher.runs.submit import require_training_packages, run_spec


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
    spec = run_spec(loaded, cluster=location.cluster, entered=ENTERED)
    spec = spec.with_changes(benchmark=BenchmarkRequest(models=models))
    if location.loaded is not None:
        _measure_cluster(location, spec, keep=keep, as_json=as_json)
        return
    require_training_packages("launch measure")
    folder = create_run(None, "measure", spec)
    click.echo("measuring this machine, and nothing else should run on it meanwhile", err=True)
    run_local(folder, detach=False, as_json=as_json, report=report)
    if not keep:
        LocalRemoval.of(folder, folder.name).remove()


def _measure_cluster(location: RunLocation, spec: RunSpec, *, keep: bool, as_json: bool) -> None:
    assert location.loaded is not None
    view = BringUpView()
    with open_cluster(location.loaded, location.pool, observer=view) as cluster:
        run = create_remote_run(cluster, "measure", location.pool, spec, None, Tuning())
        try:
            submit(run, cluster, view, detach=False, as_json=as_json, report=report)
        except Interrupted:
            run.request_stop()
            raise _stopped(run) from None
        if not keep:
            remove_measuring_run(cluster, run)


def report(run: Run, *, as_json: bool) -> None:
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


def print_measurement(measurement: Measurement) -> None:
    """Hosts, links and the probe, as a person reads them."""
    rows = [{"host": name or "here", **vars(speed)} for name, speed in measurement.hosts.items()]
    widths = sorted({width for row in rows for width in row["widths"]})
    columns = [
        Column("host", lambda row: row["host"]),
        Column("processor", lambda row: row["processor"]),
        Column("threads", lambda row: str(row["threads"]), right=True),
        *(_width_column(width) for width in widths),
        Column("memory GB/s", lambda row: _scaled(row["memory_bytes_per_second"], 1e9), right=True),
        Column("disk MB/s", lambda row: _scaled(row["disk_bytes_per_second"], 1e6), right=True),
    ]
    print_table(columns, rows, as_json=False)
    for row in rows:
        words = [f"threads {row['why_threads']}"]
        if row["pass_tokens"] is not None:
            words.append(f"passes of {row['pass_tokens']:,} tokens are as fast as any")
        click.echo(f"{row['host']}: {'; '.join(words)}")
    if measurement.links:
        click.echo()
        _print_links(measurement)
    if (probe := measurement.probe) is not None:
        click.echo(
            f"\n{probe.recipe} on all of it: {probe.tokens_per_step / probe.step_seconds:,.0f} "
            f"tok/s, {probe.step_seconds:.2f} s a step of {probe.tokens_per_step:,} tokens "
            f"(median of {probe.steps})"
        )
    busy = [row["host"] for row in rows if row["busy_cores"]]
    if busy:
        click.secho(
            f"something else was at work on {', '.join(busy)}: figures are too low; `launch "
            "measure` again when it is quiet",
            fg="yellow",
        )
    file = format_path(measurement_file(measurement.cluster))
    click.echo(f"saved in {file}: `launch recipe` chooses by it from now on")


def _print_links(measurement: Measurement) -> None:
    rows = [
        {"between": names.replace(" ", " - "), **vars(link)}
        for names, link in measurement.links.items()
    ]
    columns = [
        Column("between", lambda row: row["between"]),
        Column("Mbit/s", lambda row: _scaled(8 * row["bytes_per_second"], 1e6), right=True),
        Column("latency ms", lambda row: f"{row['latency_seconds'] * 1e3:.2g}", right=True),
        Column("cpu s/GB", lambda row: f"{row['cpu_seconds_per_byte'] * 1e9:.2g}", right=True),
    ]
    print_table(columns, rows, as_json=False)


def _width_column(width: int) -> Column:
    """GFLOP/s of the products of this width."""

    def cell(row: Row) -> str:
        rates = row["widths"].get(width)
        return "-" if rates is None else _scaled(rates.products, 1e9)

    return Column(f"GFLOP/s at {width}", cell, right=True)


def _scaled(value: float, unit: float) -> str:
    number = value / unit
    return f"{number:,.0f}" if number >= 99.5 else f"{number:.3g}"
