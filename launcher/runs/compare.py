"""Runs side by side: what they reached, at equal tokens too, and what they were set to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.runs.folder import RunFolder
from launcher.runs.history import RunHistory, moving_average
from launcher.runs.node import RunNode
from launcher.runs.state import RunState

LOSS_STEPS = 20  # one step's loss is its batch's as much as the model's
INCOMPARABLE_KEYS = {  # keys of a run's data
    "data.validation": "their bits per byte are of different validation texts",
    "tokenizer": "their losses are per token of different tokenizers",
}
IGNORED_KEYS = ("guide",)  # what a published guide says of a size changes nothing


def compare_runs(
    folders: Sequence[RunFolder], states: Sequence[RunState], histories: Sequence[RunHistory]
) -> dict[str, Any]:
    """`figures` and `differences`: name -> a value for each run, None where it has none. The second
    holds the settings, versions and hashes that are not the same for all."""
    figures: dict[str, list[Any]] = {
        "status": [state.status for state in states],
        "steps": [state.step for state in states],
        "tokens": [history.tokens[-1] for history in histories],
        "hours": [round(history.hours[-1], 4) for history in histories],
        "tokens_per_second": [state.tokens_per_second for state in states],
        "train_loss": [state.train_loss for state in states],
        "val_bpb": [state.val_bpb for state in states],
        "restarts": [state.restarts for state in states],
    }
    tokens = min(history.tokens[-1] for history in histories)
    figures[f"loss at {tokens:,} tokens"] = [_loss_at(history, tokens) for history in histories]
    shared = set.intersection(*(set(history.evaluated_tokens) for history in histories)) - {0}
    if shared:
        tokens = max(shared)
        figures[f"val_bpb at {tokens:,} tokens"] = [
            history.val_bpb[history.evaluated_tokens.index(tokens)] for history in histories
        ]
    settings = [_comparable_settings(folder) for folder in folders]
    keys = dict.fromkeys(key for run_settings in settings for key in run_settings)
    rows = {key: [run_settings.get(key) for run_settings in settings] for key in keys}
    differences = {key: row for key, row in rows.items() if any(v != row[0] for v in row[1:])}
    return {
        "runs": [history.name for history in histories],
        "figures": figures,
        "differences": differences,
        "warnings": [message for key, message in INCOMPARABLE_KEYS.items() if key in differences],
    }


def _loss_at(history: RunHistory, tokens: int) -> float | None:
    """The mean of the last steps up to there; None where not one ends before."""
    steps = zip(history.loss, history.tokens, strict=True)
    losses = [loss for loss, trained in steps if trained <= tokens]
    return moving_average(losses, LOSS_STEPS)[-1] if losses else None


def _comparable_settings(folder: RunFolder) -> dict[str, Any]:
    """Dotted key -> value of what decides a run."""
    spec = folder.spec()
    settings = {key: value for key, value in spec.settings.items() if key not in IGNORED_KEYS}
    nodes = ", ".join(map(_with_share, spec.nodes))
    return {
        "recipe": spec.recipe_name,
        "cluster": spec.cluster,
        **({"nodes": nodes} if nodes else {}),
        **_flatten(settings),
        **_flatten({"versions": spec.versions}),
        **_flatten(spec.data.identity if spec.data else {}),
    }


def _with_share(node: RunNode) -> str:
    return node.name if node.share == 1 else f"{node.name} (share {node.share:g})"


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
