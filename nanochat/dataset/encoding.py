"""Documents -> token ids, on several threads while the caller packs."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy.typing as npt

from nanochat.dataset.document import Document
from nanochat.dataset.packing import Ids
from nanochat.dataset.permutation import permutation
from nanochat.tokenizer import Tokenizer

BATCH_CHARACTERS = 500_000
# Of text: enough to mix files whose names stand together, and encoded in 3 s.
PORTION_BYTES = 16_000_000
# Linux, where training is, has priorities of single threads: this one runs where nobody else does.
BACKGROUND: int | None = getattr(os, "SCHED_IDLE", None)


class Encoded(NamedTuple):
    """A document as ids without BOS. `digest` is the sha256 of its text as a number."""

    ids: Ids
    continuous: bool
    bytes: int
    digest: int


class Throttle:
    """How eagerly text is prepared: all out, or with what training leaves."""

    def __init__(self) -> None:
        self._lowered = False

    def lower_priority(self) -> None:
        """Use idle cores only, from now on."""
        self._lowered = True

    def apply(self) -> None:
        """Give the calling thread the priority that was set."""
        if self._lowered and BACKGROUND is not None:
            with contextlib.suppress(OSError):  # a sandbox may not let us: not worth a run
                os.sched_setscheduler(0, BACKGROUND, os.sched_param(0))


def encode(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    dtype: npt.DTypeLike,
    threads: int,
    throttle: Throttle,
) -> Iterator[Encoded]:
    """In the order of `documents`. Holds a few batches of text at a time."""

    def encode_batch(batch: list[Document]) -> list[Encoded]:
        throttle.apply()
        return [
            _encoded(document, tokenizer.encode_array(document.text).astype(dtype))
            for document in batch
        ]

    waiting: deque[Future[list[Encoded]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(documents):
            waiting.append(pool.submit(encode_batch, batch))
            if len(waiting) > threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def portions(encoded: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Consecutive documents of PORTION_BYTES of text together; the last portion has less."""
    stream = iter(encoded)
    while True:
        portion: list[Encoded] = []
        size = 0
        while size < PORTION_BYTES and (document := next(stream, None)) is not None:
            portion.append(document)
            size += document.bytes
        if not portion:
            return
        yield portion


def shuffled_stretches(portion: Sequence[Encoded], number: int) -> list[Encoded]:
    """The portion with its stretches of files in an order that `number` decides, because files
    stand by name and neighbours are alike; documents keep their order, as upstream's shards do."""
    stretches = [document for document in portion if document.continuous]
    order = iter(permutation(len(stretches), number))
    return [stretches[next(order)] if document.continuous else document for document in portion]


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encoded(document: Document, ids: Ids) -> Encoded:
    text = document.text.encode()
    digest = int.from_bytes(hashlib.sha256(text).digest())
    return Encoded(ids, document.continuous, len(text), digest)
