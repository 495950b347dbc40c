"""What a run computes with, where something was chosen for it by what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from records import make_node, make_spec

from launcher.config.cluster_file import load_cluster
from launcher.config.recipe import Recipe
from launcher.operations.open_cluster import OpenCluster
from launcher.runs.spec import Tuning
from launcher.training.device import choose_device
from launcher.training.local_session import LocalSession

CHOSEN = Tuning(
    threads={"one": 3, "two": 9},
    cpus={"one": (0, 2, 4)},
    shares={"one": 1.5, "two": 0.5},
    reasons={"threads": "one: 3 of 8", "shares": "one 3, two 1 of the 4 rows of a step"},
)


@pytest.mark.skipif(torch.cuda.is_available(), reason="threads are a CPU's")
def test_threads_are_those_that_were_chosen() -> None:
    recipe = Recipe(
        depth=4, head_dim=64, sequence_length=512, tokens_per_step=2048, steps=1, workers=1
    )
    session = LocalSession("", workers=1)
    session.nodes = [make_node("one", cpus=8, share=1.5), make_node("two", cpus=4, share=0.5)]
    found = choose_device(recipe, session, CHOSEN)
    assert found.threads == {"one": 3, "two": 4}  # never more than a rank may use
    assert found.cpus == {"one": (0, 2, 4)}
    assert found.reasons["threads"] == "one: 3 of 8"
    assert found.reasons["shares"] == "one 3, two 1 of the 4 rows of a step"
    plain = choose_device(recipe, session)
    assert plain.threads == {"one": 8, "two": 4} and plain.cpus == {}
    assert plain.reasons["shares"].endswith("the cluster file says so")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("", {"one": 1.5, "two": 0.5, "new": 1.0}),
        (", share: 2", {"one": 1.0, "two": 1.0, "new": 2.0}),
    ],
    ids=["chosen", "written"],
)
def test_chosen_shares_give_way_to_written_ones(
    tmp_path: Path, written: str, expected: dict[str, float]
) -> None:
    file = tmp_path / "three.yaml"
    file.write_text(
        "nodes:\n  - {name: one, host: h1}\n  - {name: two, host: h2}\n"
        f"  - {{name: new, host: h3{written}}}\n"
    )
    loaded = load_cluster(str(file))
    nodes = tuple(make_node(node.name, cpus=4, share=node.share) for node in loaded.cluster.nodes)
    rest: dict[str, Any] = dict.fromkeys(OpenCluster.__dataclass_fields__)
    up = OpenCluster(**{**rest, "cluster": loaded, "run_nodes": nodes})
    spec = up.assign_nodes(make_spec(settings={"depth": 4}), CHOSEN)
    assert {node.name: node.share for node in spec.nodes} == spec.shares == expected
    assert spec.settings == {"depth": 4, "workers": 3}
