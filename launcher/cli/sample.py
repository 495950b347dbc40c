"""`launch sample RUN`: text from the newest checkpoint, as it is drawn."""

from __future__ import annotations

import json

import click

from launcher.cli.output import json_option
from launcher.runs.folder import find_run
from launcher.runs.speech import Speaker
from launcher.runs.submit import require_training_packages


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
@json_option
def command(
    run: str, prompt: str, tokens: int, temperature: float, top_k: int, seed: int, as_json: bool
) -> None:
    """Let a model speak."""
    folder = find_run(run)
    require_training_packages("launch sample")
    speaker = Speaker.load(folder)
    pieces = []
    if not as_json:
        click.echo(prompt, nl=False)
    for piece in speaker.speak(
        prompt, max_tokens=tokens, temperature=temperature, top_k=top_k, seed=seed
    ):
        pieces.append(piece)
        if not as_json:
            click.echo(piece, nl=False)
    if as_json:
        text = "".join(pieces)
        click.echo(
            json.dumps({"run": folder.name, "step": speaker.step, "prompt": prompt, "text": text})
        )
    else:
        click.echo()
