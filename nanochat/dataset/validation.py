"""Which text is held out: never trained on, only measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.dataset.document import Source, SourceFile
from nanochat.dataset.encoding import Encoded
from nanochat.dataset.packing import Ids, count_rows, row_pieces

ONE_IN = 100
MIN_ROWS = 2


@dataclass(frozen=True)
class Split:
    """Files to train on and to validate with; `held_out` is None where single documents of the
    training files are held out instead."""

    source: Source
    files: Sequence[SourceFile]
    held_out: tuple[Source, Sequence[SourceFile]] | None

    @property
    def cycles_validation(self) -> bool:
        """Validation files that upstream's rule chose are packed by its rule too: see
        `SplitWriter.pack_cycling`."""
        return self.held_out is not None and self.held_out[0] is self.source


def split_source(source: Source, validation: Source | None) -> Split:
    """`validation` where given; else what the source itself holds out; else the last of two or more
    parquet files; else documents."""
    if validation is not None:
        return Split(source, source.files, (validation, validation.files))
    if source.held_out:
        return Split(source, source.files, (source, source.held_out))
    parquet = [file for file in source.files if file.path.suffix.lower() == ".parquet"]
    if len(parquet) >= 2:
        rest = [file for file in source.files if file != parquet[-1]]
        return Split(source, rest, (source, parquet[-1:]))
    return Split(source, source.files, None)


class HeldOutDocuments:
    """One document in 100, by the hash of its text; where those of the first portion fill less than
    two rows, its other documents too, in the order of their hashes, until they do.

    Equal texts stay together. Of a continuous document only the start is taken that fills the
    rows: a user's one text file must not move over as a whole.
    """

    def __init__(self, first: Sequence[Encoded], capacity: int) -> None:
        self._taken: dict[int, int] = {}  # digest -> tokens at the start of such a document
        documents = {document.digest: document for document in first}
        chosen = [document for digest, document in documents.items() if digest % ONE_IN == 0]
        pieces = [piece for document in chosen for piece in _pieces(document, capacity)]
        for digest in sorted(documents):
            missing = MIN_ROWS - count_rows(pieces, capacity)
            if missing <= 0:
                break
            if digest % ONE_IN:
                document = documents[digest]
                some = _pieces(document, capacity)
                some = some[:missing] if document.continuous else some
                self._taken[digest] = sum(map(len, some))
                pieces += some

    def split(self, document: Encoded) -> tuple[Ids, Ids]:
        """Ids to train on and ids to validate with; either may be empty."""
        taken = self._taken.get(document.digest, 0)
        if document.digest % ONE_IN == 0:
            taken = len(document.ids)
        return document.ids[taken:], document.ids[:taken]


def _pieces(document: Encoded, capacity: int) -> list[Ids]:
    return row_pieces(document.ids, capacity, continuous=document.continuous)
