"""Rows are what a plain scan over the buffer would give: upstream's rule, written out."""

from __future__ import annotations

import numpy as np
import pytest

from nanochat.dataset.packing import (
    BUFFER_DOCUMENTS,
    REFILL_DOCUMENTS,
    Ids,
    Packer,
    count_rows,
    row_dtype,
    row_pieces,
)

BOS = 999


def scan(documents: list[list[int]], capacity: int) -> list[list[int]]:
    """Best fit by scanning an unsorted buffer. `documents` have their BOS."""
    waiting, buffer = list(documents), list[list[int]]()
    rows, row = list[list[int]](), list[int]()
    while True:
        while len(buffer) < BUFFER_DOCUMENTS and waiting:
            buffer += waiting[:REFILL_DOCUMENTS]
            del waiting[:REFILL_DOCUMENTS]
        if not buffer:
            return rows
        room = capacity - len(row)
        best, best_length = -1, 0
        for i, document in enumerate(buffer):
            if best_length < len(document) <= room:
                best, best_length = i, len(document)
        if best < 0:
            best = min(range(len(buffer)), key=lambda i: len(buffer[i]))
        row += buffer.pop(best)[:room]
        if len(row) == capacity:
            rows.append(row)
            row = []


def pack(documents: list[list[int]], capacity: int) -> Ids:
    packer = Packer(capacity, BOS, np.uint16)
    for document in documents:
        packer.add(np.array(document, np.uint16))
    packer.drain()
    return packer.take(packer.rows)


def random_documents(count: int, longest: int, seed: int) -> list[list[int]]:
    """Each begins with its number, so that no two are alike."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest, count, endpoint=True)
    return [[i % 900, *generator.integers(0, 900, n - 1)] for i, n in enumerate(lengths)]


@pytest.mark.parametrize(
    ("count", "longest", "capacity"),
    [
        (3000, 60, 33),  # many longer than a row
        (2500, 20, 65),  # many to a row
        (1128, 7, 64),  # many of equal length
        (999, 40, 33),  # never fills the buffer
        (1, 100, 33),
        (1, 5, 33),
        (0, 1, 33),
    ],
)
def test_rows_equal_those_of_a_plain_scan(count: int, longest: int, capacity: int) -> None:
    documents = random_documents(count, longest, seed=count)
    expected = scan([[BOS, *document] for document in documents], capacity)
    rows = pack(documents, capacity)
    assert rows.shape == (len(expected), capacity)
    assert rows.tolist() == expected
    assert all(row[0] == BOS for row in rows)


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        # the largest that fits, then the next; (2, 3) before (4, 5): first come, first picked
        ([[1], [2, 3], [4, 5], [6], [7]], [[BOS, 2, 3, BOS, 4, 5], [BOS, 1, BOS, 6, BOS, 7]]),
        # nothing fits: the shortest is cropped, its rest thrown away
        ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]], [[BOS, 1, 2, 3, 4, 5], [BOS, 1, 2, 3, 4, 5]]),
        # exactly a row
        ([[1, 2, 3, 4, 5]], [[BOS, 1, 2, 3, 4, 5]]),
        # a partial row is dropped
        ([[1, 2, 3, 4]], []),
    ],
)
def test_small_cases(documents: list[list[int]], expected: list[list[int]]) -> None:
    assert pack(documents, 6).tolist() == expected


def test_rows_can_be_taken_while_documents_come() -> None:
    documents = random_documents(2500, 60, seed=1)
    packer = Packer(33, BOS, np.uint16)
    taken = []
    for document in documents:
        packer.add(np.array(document, np.uint16))
        while packer.rows >= 10:
            taken.append(packer.take(10))
    assert len(taken) > 50
    packer.drain()
    taken.append(packer.take(10_000))
    assert packer.rows == 0
    assert np.concatenate(taken).tolist() == pack(documents, 33).tolist()


@pytest.mark.parametrize("length", [0, 4, 5, 6, 10, 11, 50])
def test_continuous_documents_are_cut_into_full_rows_and_a_rest(length: int) -> None:
    ids = np.arange(length, dtype=np.uint16)
    pieces = row_pieces(ids, 6, continuous=True)
    assert [len(piece) for piece in pieces[:-1]] == [5] * (len(pieces) - 1)
    assert [i for piece in pieces for i in piece.tolist()] == list(range(length))
    whole = row_pieces(ids, 6, continuous=False)
    assert [piece.tolist() for piece in whole] == ([list(range(length))] if length else [])
    assert count_rows(pieces, 6) == length // 5


@pytest.mark.parametrize(("vocab_size", "dtype"), [(512, "<u2"), (65_536, "<u2"), (65_537, "<u4")])
def test_ids_take_two_bytes_where_they_fit(vocab_size: int, dtype: str) -> None:
    assert row_dtype(vocab_size) == np.dtype(dtype)
