"""BOS-aligned best-fit packing: documents -> rows of one length, without padding.

Upstream's rule (karpathy/nanochat `dataloader.py`). Every row starts with BOS, as every document
does. From a buffer of at least 1,000 documents the largest that fits the rest of the row goes in,
again and again; where none fits, the shortest is cropped to fill the row exactly and the rest of
it is thrown away. Upstream scans the buffer; here it is kept sorted, which gives the same rows.
Of documents longer than a row the short ones therefore come first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

PACKING_VERSION = 2  # raise it whenever the same text would give other rows
BUFFER_DOCUMENTS = 1000
REFILL_DOCUMENTS = 128

Ids = npt.NDArray[np.unsignedinteger[Any]]


def row_dtype(vocab_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Little-endian; 2 bytes a token wherever its id fits."""
    return np.dtype("<u2" if vocab_size <= 65_536 else "<u4")


def row_pieces(ids: Ids, capacity: int, *, continuous: bool) -> list[Ids]:
    """What of a document's ids is packed by itself: all of it, or, where a continuous one is longer
    than a row, full rows of it and the rest. None where there are no ids."""
    room = capacity - 1 if continuous else max(1, len(ids))
    return [ids[start : start + room] for start in range(0, len(ids), room)]


def count_rows(pieces: Iterable[Ids], capacity: int) -> int:
    """How many rows the pieces fill."""
    packer = Packer(capacity, 0, np.uint32)
    for piece in pieces:
        packer.add(piece)
    packer.drain()
    return packer.rows


class Packer:
    """Add documents one by one and take the rows that are full; `drain` at the end.

    `capacity`: tokens of a row, BOS included: sequence_length + 1.
    """

    def __init__(self, capacity: int, bos_id: int, dtype: npt.DTypeLike) -> None:
        self._capacity = capacity
        self._bos_id = bos_id
        self._dtype = dtype
        self._rows: list[Ids] = []
        self._row = np.empty(capacity, dtype)
        self._filled = 0
        # (length with BOS, arrival) of what is in the buffer, sorted; first come, first picked
        self._keys: list[tuple[int, int]] = []
        self._documents: dict[int, Ids] = {}
        self._arrivals = 0

    @property
    def rows(self) -> int:
        """Full rows that wait to be taken."""
        return len(self._rows)

    def add(self, ids: Ids) -> None:
        """A document's ids without BOS, at least one."""
        insort(self._keys, (len(ids) + 1, self._arrivals))
        self._documents[self._arrivals] = ids
        self._arrivals += 1
        if self._arrivals % REFILL_DOCUMENTS == 0:
            while len(self._keys) >= BUFFER_DOCUMENTS:
                self._place_one()

    def drain(self) -> None:
        """Place what is left in the buffer too. The last row is dropped where it is not full."""
        while self._keys:
            self._place_one()

    def take(self, rows: int) -> Ids:
        """(rows, capacity): the first of the full rows, or all where there are fewer."""
        taken, self._rows = self._rows[:rows], self._rows[rows:]
        return np.stack(taken) if taken else np.empty((0, self._capacity), self._dtype)

    def _place_one(self) -> None:
        room = self._capacity - self._filled
        fitting = bisect_left(self._keys, (room + 1, 0))
        choice = bisect_left(self._keys, (self._keys[fitting - 1][0], 0)) if fitting else 0
        length, arrival = self._keys.pop(choice)
        end = self._filled + min(length, room)
        self._row[self._filled] = self._bos_id
        self._row[self._filled + 1 : end] = self._documents.pop(arrival)[: room - 1]
        self._filled = end
        if end == self._capacity:
            self._rows.append(self._row)
            self._row = np.empty(self._capacity, self._dtype)
            self._filled = 0
