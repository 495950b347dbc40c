"""`launch sample RUN`: text from the newest checkpoint, as it is drawn."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

from launcher.agent.generate import Sampler
from launcher.cli.options import cluster_option, json_option, notify
from launcher.operations.run_address import open_run_to_read
from launcher.raycluster.control import ask_host
from launcher.remote.cluster_runs import RemoteRun
from launcher.remote.fetch_checkpoints import fetch_weights
from launcher.runs.training_requirements import missing_packages, require_training_packages

GENERATE_SECONDS = 600.0


@click.command()
@click.argument("run")
@click.option("--prompt", default="", help="The text to go on from.")
@click.option("--tokens", type=click.IntRange(1), default=128, show_default=True)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 100),
    default=0.8,
    show_default=True,
    help="0: likeliest.",
)
@click.option("--top-k", type=click.IntRange(1), default=50, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=42, show_default=True)
@cluster_option
@json_option
def command(
    run: str,
    prompt: str,
    tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Let a model speak: here where torch is installed, else on the head of its cluster."""
    options: dict[str, Any] = {
        "prompt": prompt, "max_tokens": tokens, "temperature": temperature, "top_k": top_k,
        "seed": seed,
    }  # fmt: skip
    with open_run_to_read(run, cluster, notify=notify) as opened:
        if isinstance(opened, RemoteRun) and missing_packages():
            step, text = _generate_on_head(opened, options)
            pieces: Iterable[str] = [text]
        else:
            require_training_packages("launch sample")
            if isinstance(opened, RemoteRun):
                fetch_weights(opened)
            sampler = Sampler.load(opened.folder)
            step = sampler.step
            pieces = sampler.generate(**options)
        text_pieces = []
        if not as_json:
            click.echo(prompt, nl=False)
        for piece in pieces:
            text_pieces.append(piece)
            if not as_json:
                click.echo(piece, nl=False)
        if as_json:
            document = {"run": opened.folder.name, "step": step, "prompt": prompt}
            click.echo(json.dumps(document | {"text": "".join(text_pieces)}))
        else:
            click.echo()


def _generate_on_head(run: RemoteRun, options: Mapping[str, Any]) -> tuple[int, str]:
    answer = ask_host(
        run.runs.head,
        run.runs.spec,
        "launcher.agent.generate",
        f"~/{run.path}",
        json.dumps(options),
        seconds=GENERATE_SECONDS,
    )
    return answer["step"], answer["text"]
