"""Rows are what a plain scan over the buffer would give: upstream's rule, written out."""

from __future__ import annotations

import numpy as np
import pytest

from nanochat.dataset.packing import BUFFER_DOCUMENTS, REFILL_DOCUMENTS, Ids, Packer, row_dtype

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


def pack(documents: list[list[int]], capacity: int, *, continuous: bool = False) -> Ids:
    packer = Packer(capacity, BOS, np.uint16)
    for document in documents:
        packer.add(np.array(document, np.uint16), continuous=continuous)
    return packer.drain()


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


@pytest.mark.parametrize("length", [4, 5, 6, 10, 11, 50])
def test_continuous_documents_are_cut_and_not_cropped(length: int) -> None:
    ids = list(range(length))
    rows = pack([ids], 6, continuous=True)
    assert rows.tolist() == [
        [BOS, *ids[start : start + 5]] for start in range(0, length - length % 5, 5)
    ]


def test_the_rest_of_a_continuous_document_is_packed_with_others() -> None:
    packer = Packer(6, BOS, np.uint16)
    packer.add(np.arange(7, dtype=np.uint16), continuous=True)
    packer.add(np.array([50, 51], np.uint16), continuous=False)
    assert packer.drain().tolist() == [[BOS, 0, 1, 2, 3, 4], [BOS, 5, 6, BOS, 50, 51]]
    assert packer.tokens == 12


@pytest.mark.parametrize(("vocab_size", "dtype"), [(512, "<u2"), (65_536, "<u2"), (65_537, "<u4")])
def test_ids_take_two_bytes_where_they_fit(vocab_size: int, dtype: str) -> None:
    assert row_dtype(vocab_size) == np.dtype(dtype)
