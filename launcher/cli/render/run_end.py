"""What a person reads when a run has ended, or was left to itself."""

from __future__ import annotations

from launcher.formatting import format_count, format_duration
from launcher.runs.run import Run, run_address
from launcher.runs.spec import Prediction, RunSpec
from launcher.runs.summary import Summary


def summary_block(name: str, summary: Summary, spec: RunSpec) -> str:
    """`key  value` lines: short for a person, and one awk away for a script."""
    took = format_duration(summary.seconds)
    lines = [
        ("run", f"{name} ({summary.status})"),
        ("steps", f"{summary.steps:,}  ({format_count(summary.tokens)} tokens in {took})"),
        ("speed", _speed(summary.tokens_per_second, spec.predicted)),
        ("train_loss", f"{summary.train_loss:.4f} nats per token" if summary.train_loss else "-"),
        ("val_bpb", f"{summary.val_bpb:.4f}" if summary.val_bpb else "-"),
        ("restarts", str(summary.restarts)),
        ("checkpoint", str(summary.checkpoint or "-")),
    ]
    text = "\n".join(f"{key:<12}{value}" for key, value in lines)
    if summary.status == "stopped":
        text += f"\n\nlaunch resume {name}   goes on with it"
    elif summary.checkpoint:
        text += f"\n\n{sample_command(name, spec)}   lets it speak"
    return text


def _speed(tokens_per_second: float | None, predicted: Prediction | None) -> str:
    """Compare with what was predicted when the run was created."""
    if not tokens_per_second:
        return "-"
    text = f"{tokens_per_second:,.0f} tok/s"
    if predicted is not None and (expected := predicted.tokens_per_second.expected):
        text += f"  (predicted {expected:,.0f}: {tokens_per_second / expected - 1:+.0%})"
    return text


def sample_command(name: str, spec: RunSpec) -> str:
    """Return a command that samples the run, with a prompt that fits its text."""
    data = spec.settings.get("data")  # of another version, whose recipe may be unknown here
    is_code = isinstance(data, dict) and data.get("source") == "embedded"
    return f"launch sample {name} --prompt '{'import' if is_code else 'The'} '"


def detached_message(run: Run) -> str:
    """Say that the run continues, and how to follow or stop it."""
    name = run_address(run)
    where = "in the background" if run.cluster == "local" else f"on cluster {run.cluster}"
    commands = (
        (f"launch logs {name} -f", "follow it"),
        (f"launch stop {name}", "save and stop it"),
    )
    lines = [f"  {command:<36} {text}" for command, text in commands]
    return "\n".join([f"run '{run.folder.name}' runs {where}", *lines])


def ended_message(name: str, status: str, step: int, node: str) -> str:
    """Say how a run ended while `node` was drained. `step`: the last one saved, 0 if none."""
    saved = f"last saved at step {step:,}" if step else "nothing saved yet"
    text = f"run '{name}' has ended ({status}), {saved}"
    if status == "stopped":
        text += f"\n  launch resume {name}   goes on without {node}, with the same rows"
    return text
