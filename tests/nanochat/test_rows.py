"""Training order: every row once an epoch, shuffled inside blocks, a pure function of (seed, i)."""

from __future__ import annotations

import numpy as np
import pytest

from nanochat.dataset import RowDataset, RowSampler

BLOCKS = (7, 1, 20, 12)
ROWS = sum(BLOCKS)
GOLDEN = [0, 1, 4, 2, 6, 5, 7, 3, 7, 3, 4, 2, 5, 6, 0, 1]


def test_every_row_appears_once_an_epoch_and_blocks_come_in_order() -> None:
    order = RowSampler(seed=1, block_rows=BLOCKS)
    for epoch in range(3):
        rows = order.rows(epoch * ROWS, (epoch + 1) * ROWS)
        assert sorted(rows) == list(range(ROWS))
        start = 0
        for count in BLOCKS:
            assert sorted(rows[start : start + count]) == list(range(start, start + count))
            start += count


def test_seed_epoch_and_block_each_change_the_shuffle() -> None:
    first, other = RowSampler(1, (50, 50)), RowSampler(2, (50, 50))
    epoch = first.rows(0, 100).tolist()
    assert epoch != other.rows(0, 100).tolist()
    assert epoch != first.rows(100, 200).tolist()
    assert epoch[:50] != [row - 50 for row in epoch[50:]]
    assert epoch == RowSampler(1, (50, 50)).rows(0, 100).tolist()


def test_the_order_is_the_same_on_every_machine_and_numpy() -> None:
    assert RowSampler(42, (8,)).rows(0, 16).tolist() == GOLDEN


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_any_split_among_ranks_reads_the_same_rows(ranks: int) -> None:
    everything = RowSampler(3, BLOCKS).rows(0, 4 * ROWS)
    share = 5
    seen = []
    orders = [RowSampler(3, BLOCKS) for _ in range(ranks)]
    for start in range(0, 4 * ROWS - share * ranks + 1, share * ranks):
        for rank, order in enumerate(orders):
            first = start + rank * share
            seen += order.rows(first, first + share).tolist()
    assert seen == everything[: len(seen)].tolist()
    assert len(seen) > 3 * ROWS


def test_a_row_anywhere_is_found_without_its_predecessors() -> None:
    order = RowSampler(3, BLOCKS)
    assert [order.row(i) for i in range(2 * ROWS)] == order.rows(0, 2 * ROWS).tolist()
    assert order.row(10**12) == RowSampler(3, BLOCKS).row(10**12)
    assert order.rows(5, 5).tolist() == []


def test_batches_gather_rows_across_blocks() -> None:
    stored = np.arange(ROWS * 3, dtype="<u2").reshape(ROWS, 3)
    rows = RowDataset(BLOCKS, np.split(stored, np.cumsum(BLOCKS)[:-1]).__getitem__)
    wanted = [39, 0, 6, 7, 8, 27, 28, 0]
    batch = rows.batch(wanted)
    assert (batch.dtype, batch.shape) == (np.int64, (8, 3))
    assert batch.tolist() == stored[wanted].tolist()
    assert (len(rows), rows.block_rows) == (ROWS, BLOCKS)


def test_the_blocks_of_a_stretch_are_those_that_its_rows_lie_in() -> None:
    order, ends = RowSampler(3, BLOCKS), np.cumsum(BLOCKS)
    for start, stop in [(0, 1), (0, ROWS), (6, 9), (ROWS - 1, ROWS + 1), (3 * ROWS, 4 * ROWS)]:
        lie_in = {int(np.searchsorted(ends, row, side="right")) for row in order.rows(start, stop)}
        assert order.blocks(start, stop) == sorted(lie_in)
