"""Which of a run's nodes may train, from what Ray says of the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.training.live_nodes import LiveNode, live_nodes


def node(
    name: str, key: str, *, alive: bool = True, slots: float = 1.0, code: str = "c1"
) -> dict[str, Any]:
    resources = {"CPU": 4.0} | ({"rank_slot": slots} if slots else {})
    known = {"NodeName": name, "NodeID": key, "Alive": alive, "Resources": resources}
    return {**known, "Labels": {"launch-code": code}}


ONE, TWO = node("one", "a"), node("two", "b", slots=2.0)


@pytest.mark.parametrize(
    ("known", "drained", "there"),
    [
        pytest.param([TWO, ONE], set(), {"one": ("a", 1), "two": ("b", 2)}, id="the run's order"),
        pytest.param([TWO, ONE], {"two"}, {"one": ("a", 1)}, id="drained"),
        pytest.param([ONE, node("two", "b", alive=False)], set(), {"one": ("a", 1)}, id="lost"),
        pytest.param(
            [ONE, node("two", "b", alive=False), node("two", "c")],
            set(),
            {"one": ("a", 1), "two": ("c", 1)},
            id="back",
        ),
        pytest.param([ONE, TWO, node("two", "c")], set(), {"one": ("a", 1)}, id="two lives"),
        pytest.param([ONE, node("two", "c", slots=0)], set(), {"one": ("a", 1)}, id="no slots yet"),
        pytest.param([ONE, node("two", "c", code="c0")], set(), {"one": ("a", 1)}, id="old code"),
        pytest.param([ONE, node("three", "c")], set(), {"one": ("a", 1)}, id="not the run's"),
    ],
)
def test_nodes_that_may_train(
    known: list[dict[str, Any]], drained: set[str], there: dict[str, tuple[str, int]]
) -> None:
    found = live_nodes(known, ("one", "two"), drained)
    assert list(found.items()) == [(name, LiveNode(*each)) for name, each in there.items()]
