"""Rows dealt out to ranks by weight."""

from __future__ import annotations

import pytest

from nanochat.batch_split import split_rows


@pytest.mark.parametrize(
    ("rows", "weights", "counts"),
    [
        (4, [1, 1], [2, 2]),
        (4, [1, 1, 1], [2, 1, 1]),
        (32, [3, 1], [24, 8]),
        (32, [0.7, 0.2], [25, 7]),
        (5, [1, 2, 1], [1, 3, 1]),  # 1.25, 2.5, 1.25
        (4, [20, 1, 1], [4, 0, 0]),
        (0, [1, 2], [0, 0]),
        (7, [5], [7]),
    ],
)
def test_shares_go_by_weight(rows: int, weights: list[float], counts: list[int]) -> None:
    ranges = split_rows(rows, weights)
    assert [len(share) for share in ranges] == counts
    assert [row for share in ranges for row in share] == list(range(rows))
