"""What was measured of hosts and links, as a person reads it."""

from __future__ import annotations

import click

from launcher.cli.render.table import Column, Row, print_table
from launcher.config.paths import format_path
from launcher.planner.measurement import Measurement, measurement_file


def print_measurement(measurement: Measurement) -> None:
    """Hosts, links and the probe, as a person reads them."""
    rows = [{"host": name or "here", **vars(speed)} for name, speed in measurement.hosts.items()]
    widths = sorted({width for row in rows for width in row["widths"]})
    columns = [
        Column("host", lambda row: row["host"]),
        Column("processor", lambda row: row["processor"]),
        Column("threads", lambda row: str(row["threads"]), right=True),
        *(_width_column(width) for width in widths),
        Column(
            "memory GB/s",
            lambda row: _format_scaled(row["memory_bytes_per_second"], 1e9),
            right=True,
        ),
        Column(
            "disk MB/s", lambda row: _format_scaled(row["disk_bytes_per_second"], 1e6), right=True
        ),
    ]
    print_table(columns, rows, as_json=False)
    for row in rows:
        notes = [f"threads {row['why_threads']}"]
        if row["pass_tokens"] is not None:
            notes.append(f"passes of {row['pass_tokens']:,} tokens are as fast as any")
        click.echo(f"{row['host']}: {'; '.join(notes)}")
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
        Column("Mbit/s", lambda row: _format_scaled(8 * row["bytes_per_second"], 1e6), right=True),
        Column("latency ms", lambda row: f"{row['latency_seconds'] * 1e3:.2g}", right=True),
        Column("cpu s/GB", lambda row: f"{row['cpu_seconds_per_byte'] * 1e9:.2g}", right=True),
    ]
    print_table(columns, rows, as_json=False)


def _width_column(width: int) -> Column:
    """GFLOP/s of the products of this width."""

    def cell(row: Row) -> str:
        rates = row["widths"].get(width)
        return "-" if rates is None else _format_scaled(rates.products, 1e9)

    return Column(f"GFLOP/s at {width}", cell, right=True)


def _format_scaled(value: float, unit: float) -> str:
    number = value / unit
    return f"{number:,.0f}" if number >= 99.5 else f"{number:.3g}"
