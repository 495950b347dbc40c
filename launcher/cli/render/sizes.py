"""The page of one size, below its row of the sizing table: a section per question."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import click

from launcher.cli.render.table import Column, Row, print_table
from launcher.formatting import format_bytes, format_count
from launcher.planner.public_runs import CLIMBMIX_TEXT

WHAT = {  # group of parameters -> what it is
    "wte": "token embedding: rows looked up, nothing multiplied",
    "value_embeds": "one more such table for every second layer, added to its values",
    "lm_head": "the head: multiplied for every token",
    "matrices": "attention and MLP of the blocks, gates of the value embeddings",
    "scalars": "weights of layers and of the token before (smear)",
    "scaling": "matrices + lm_head: what horizons are counted by",
    "total": "all but the line above, which counts two groups again",
}
PRECISIONS = {"float32": "float32, as on CPUs", "bfloat16_tables": "bf16 tables, as on GPUs"}


def print_size(row: Row) -> None:
    """row: the object of `launch size --json`."""
    for section in (_parameters, _flops, _state, _horizons, _bits_per_byte, _speeds, _sources):
        click.echo()
        section(row)


def _parameters(row: Row) -> None:
    groups = row["parameters"]
    rows = [{"name": name, "number": groups[name], "what": what} for name, what in WHAT.items()]
    print_table(
        [
            Column("parameters", lambda part: part["name"]),
            Column("how many", lambda part: f"{part['number']:,}", right=True),
            Column("what", lambda part: part["what"]),
        ],
        rows,
        as_json=False,
    )


def _flops(row: Row) -> None:
    parts, total = row["flops_parts"], row["flops_per_token"]
    factor = parts["six_n"] / total
    parts_table = [
        ("products of blocks", parts["block_products"], "6 x matrices and the smear gate"),
        ("attention", parts["attention"], "12 x dim x window of every layer"),
        ("head", parts["head"], "6 x lm_head"),
        ("all", total, "the sum: forward and backward"),
        ("6N", parts["six_n"], f"x{factor:.2f} of that: 6 x all parameters, lookup tables too"),
    ]
    print_table(
        [
            Column("FLOPs per token", lambda part: part["name"]),
            Column("how many", lambda part: format_count(part["number"]), right=True),
            Column("what", lambda part: part["what"]),
        ],
        [dict(zip(("name", "number", "what"), part, strict=True)) for part in parts_table],
        as_json=False,
    )


def _state(row: Row) -> None:
    """Of one worker between steps, and at its peak: with activations, and on a CPU the copy that
    checkpoints are written from."""
    rows = [{"precision": label} | row["state"][key] for key, label in PRECISIONS.items()]
    parts = ("weights", "gradients", "optimizer", "total", "peak")
    print_table(
        [
            Column("state of a worker", lambda kind: kind["precision"]),
            *(Column(part, partial(_bytes, part), right=True) for part in parts),
        ],
        rows,
        as_json=False,
    )


def _bytes(part: str, kind: Row) -> str:
    return format_bytes(kind[part])


def _horizons(row: Row) -> None:
    print_table(
        [
            Column("horizon", lambda line: line["name"]),
            Column("tokens", lambda line: format_count(line["tokens"]), right=True),
            Column("per parameter", lambda line: f"{line['per_parameter']:.3g}", right=True),
            Column("per scaling", lambda line: f"{line['per_scaling_parameter']:.3g}", right=True),
            Column("what", lambda line: line["what"]),
        ],
        list(_horizon_rows(row)),
        as_json=False,
    )


def _horizon_rows(row: Row) -> Iterator[Row]:
    horizons = row["horizons"]
    optimal = {"name": "optimal", "what": "about the compute optimum, by upstream"}
    yield horizons["optimal"] | optimal
    public = horizons["public_range"]
    yield public["low"] | {"name": "public, least", "what": public["source"]}
    yield public["high"] | {"name": "public, most", "what": "the same, by budgets of FLOPs"}
    yield horizons["recipe"] | {"name": "recipe", "what": _describe_horizon(horizons["recipe"])}
    if horizons["guide"] is not None:
        guide = horizons["guide"]
        guide_ratio = guide["says_per_parameter"]
        says = "" if guide_ratio is None else f"; it says {guide_ratio:g}"
        yield guide | {"name": "guide", "what": f"{_describe_horizon(guide)}{says}"}


def _describe_horizon(horizon: Row) -> str:
    steps = f"{horizon['steps']:,} x {horizon['tokens_per_step']:,}"
    return f"{steps}: x{horizon['of_optimal']:.2g} of optimal"


def _bits_per_byte(row: Row) -> None:
    rows = [run | measured for run in _numbered(row) for measured in run["bits_per_byte"]]
    if not rows:
        click.echo(f"bits per byte: no public run of {row['depth']} layers says any")
        return
    print_table(
        [
            Column("bits per byte", lambda run: f"{run['val_bpb']:.3f}"),
            Column("tokens", lambda run: _format_or_dash(format_count, run["tokens"]), right=True),
            Column("text", lambda run: run["text"]),
            Column("on", lambda run: run["hardware"]),
            Column("source", lambda run: run["number"]),
        ],
        rows,
        as_json=False,
    )
    others = sorted({run["text"] for run in rows} - {CLIMBMIX_TEXT})
    if others:
        click.echo(f"not comparable to {CLIMBMIX_TEXT}: {'; '.join(others)}")


def _speeds(row: Row) -> None:
    rows = [run for run in _numbered(row) if run["tokens_per_second"] is not None]
    if not rows:
        click.echo(f"speed: no public run of {row['depth']} layers says any")
        return
    print_table(
        [
            Column("tok/s", lambda run: format_count(run["tokens_per_second"])),
            Column("basis", lambda run: run["basis"]),
            Column("precision", lambda run: run["precision"]),
            Column(
                "peak memory",
                lambda run: _format_or_dash(format_bytes, run["peak_bytes"]),
                right=True,
            ),
            Column("on", lambda run: run["hardware"]),
            Column("source", lambda run: run["number"]),
        ],
        rows,
        as_json=False,
    )


def _sources(row: Row) -> None:
    for run in _numbered(row):
        click.echo(f"{run['number']} {run['source']}")
        for note in filter(None, run["note"].split("; ")):
            click.echo(f"    {note}")


def _numbered(row: Row) -> list[dict[str, Any]]:
    return [run | {"number": f"[{n}]"} for n, run in enumerate(row["public_runs"], start=1)]


def _format_or_dash(format_number: Callable[[float], str], number: float | None) -> str:
    return "-" if number is None else format_number(number)
