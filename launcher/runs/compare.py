"""Runs side by side: what they reached, at equal tokens too, and what they were set to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.runs.folder import RunFolder
from launcher.runs.history import RunHistory, smoothed
from launcher.runs.node import RunNode
from launcher.runs.state import RunState

LOSS_STEPS = 20  # one step's loss is its batch's as much as the model's
INCOMPARABLE = {  # keys of a run's data
    "data.validation": "their bits per byte are of different validation texts",
    "tokenizer": "their losses are per token of different tokenizers",
}
UNSAID = ("guide",)  # what a published guide says of a size changes nothing


def compare_runs(
    folders: Sequence[RunFolder], states: Sequence[RunState], curves: Sequence[RunHistory]
) -> dict[str, Any]:
    """`figures` and `differences`: name -> a value for each run, None where it has none. The second
    holds the settings, versions and hashes that are not the same for all."""
    figures: dict[str, list[Any]] = {
        "status": [state.status for state in states],
        "steps": [state.step for state in states],
        "tokens": [curve.tokens[-1] for curve in curves],
        "hours": [round(curve.hours[-1], 4) for curve in curves],
        "tokens_per_second": [state.tokens_per_second for state in states],
        "train_loss": [state.train_loss for state in states],
        "val_bpb": [state.val_bpb for state in states],
        "restarts": [state.restarts for state in states],
    }
    tokens = min(curve.tokens[-1] for curve in curves)
    figures[f"loss at {tokens:,} tokens"] = [_loss_at(curve, tokens) for curve in curves]
    shared = set.intersection(*(set(curve.evaluated_tokens) for curve in curves)) - {0}
    if shared:
        tokens = max(shared)
        figures[f"val_bpb at {tokens:,} tokens"] = [
            curve.val_bpb[curve.evaluated_tokens.index(tokens)] for curve in curves
        ]
    told = [_told(folder) for folder in folders]
    keys = dict.fromkeys(key for each in told for key in each)
    rows = {key: [each.get(key) for each in told] for key in keys}
    differences = {key: row for key, row in rows.items() if any(v != row[0] for v in row[1:])}
    return {
        "runs": [curve.name for curve in curves],
        "figures": figures,
        "differences": differences,
        "warnings": [words for key, words in INCOMPARABLE.items() if key in differences],
    }


def _loss_at(curve: RunHistory, tokens: int) -> float | None:
    """The mean of the last steps up to there; None where not one ends before."""
    until = [loss for loss, at in zip(curve.loss, curve.tokens, strict=True) if at <= tokens]
    return smoothed(until, LOSS_STEPS)[-1] if until else None


def _told(folder: RunFolder) -> dict[str, Any]:
    """Dotted key -> value of what decides a run."""
    spec = folder.spec()
    settings = {key: value for key, value in spec.settings.items() if key not in UNSAID}
    nodes = ", ".join(map(_with_share, spec.nodes))
    return {
        "recipe": spec.recipe_name,
        "cluster": spec.cluster,
        **({"nodes": nodes} if nodes else {}),
        **_flat(settings),
        **_flat({"versions": spec.versions}),
        **_flat(spec.data.identity if spec.data else {}),
    }


def _with_share(node: RunNode) -> str:
    return node.name if node.share == 1 else f"{node.name} (share {node.share:g})"


def _flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = value
    return flat
