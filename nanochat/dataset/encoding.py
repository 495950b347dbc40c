"""Documents -> token ids, on several threads while the caller packs; and blocks of them."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nanochat.dataset.document import Document
from nanochat.dataset.packing import Ids
from nanochat.tokenizer import Tokenizer

BATCH_CHARACTERS = 500_000
BLOCK_BYTES = 64_000_000  # of text: 14 M tokens, 28 MB of rows


class Encoded(NamedTuple):
    """A document as ids without BOS. `digest` is the sha256 of its text as a number."""

    ids: Ids
    continuous: bool
    bytes: int
    digest: int


def encode(
    documents: Iterable[Document], tokenizer: Tokenizer, dtype: npt.DTypeLike, threads: int
) -> Iterator[Encoded]:
    """In the order of `documents`. Holds a few batches of text at a time."""

    def encode_batch(batch: list[Document]) -> list[Encoded]:
        all_ids = tokenizer.encode_batch([document.text for document in batch], threads=1)
        return [
            _encoded(document, np.array(ids, dtype))
            for document, ids in zip(batch, all_ids, strict=True)
        ]

    waiting: deque[Future[list[Encoded]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in _batches(documents):
            waiting.append(pool.submit(encode_batch, batch))
            if len(waiting) > threads:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def blocks(encoded: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    """Consecutive documents of BLOCK_BYTES of text together, the last one less."""
    block: list[Encoded] = []
    size = 0
    for document in encoded:
        block.append(document)
        size += document.bytes
        if size >= BLOCK_BYTES:
            yield block
            block, size = [], 0
    if block:
        yield block


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
