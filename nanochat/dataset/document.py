"""What a source of text is made of."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from nanochat.errors import DataError
from nanochat.file_hash import sha256_of
from nanochat.progress import Progress


class Document(NamedTuple):
    """A text, encodable as UTF-8. `continuous`: a stretch of a file that reads on in the next
    document; where it is longer than a row it is cut into consecutive rows, not cropped."""

    text: str
    continuous: bool


class SourceFile(NamedTuple):
    """`name` is the same on every machine that holds the same files."""

    name: str
    path: Path


class FileIdentity(NamedTuple):
    """Of a file that is known by its name only, as one of a published series that has yet to be
    fetched, `sha256` is empty: the hashes of its rows then say what was in it."""

    name: str
    bytes: int
    sha256: str


def content_hash(*parts: object) -> str:
    """Hex digest of what JSON can spell, file identities above all."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Source(ABC):
    """An ordered set of files and the documents in them. `held_out`: not among them, published to
    validate with."""

    def __init__(
        self, spec: str, files: Sequence[SourceFile], held_out: Sequence[SourceFile] = ()
    ) -> None:
        self.spec = spec
        self.files = tuple(files)
        self.held_out = tuple(held_out)

    @abstractmethod
    def documents(self, files: Sequence[SourceFile] | None = None) -> Iterator[Document]:
        """The documents of `files` (default: all), none of them empty, in a fixed order.

        Raises DataError, with the file and the place in it, where one cannot be read.
        """

    def fetch(self, files: Sequence[SourceFile], on_progress: Progress) -> None:  # noqa: B027
        """Begin to bring `files` here, in this order; `documents` waits for each of its own. Those
        of most sources are here."""

    def learning_files(self, files: Sequence[SourceFile]) -> Sequence[SourceFile]:
        """Of those to train on: what the tokenizer is to learn from; all, or the first few."""
        return files

    def units(self, files: Sequence[SourceFile]) -> list[Sequence[SourceFile]]:
        """What of `files` is packed together, apart from the rest: prepared unit by unit, an
        interrupted preparation goes on behind the last whole one."""
        return [files]

    def text_bytes(self, files: Sequence[SourceFile] | None = None) -> int:
        """About how many bytes of text `files` hold, found without reading it."""
        return sum(file.path.stat().st_size for file in self._chosen(files))

    def stored_bytes(self, files: Sequence[SourceFile]) -> int:
        """What of `files` is read for their identity; 0 where that is too little to watch."""
        return sum(file.path.stat().st_size for file in files)

    def identity(
        self,
        files: Sequence[SourceFile] | None = None,
        hash_file: Callable[[Path], str] = sha256_of,
    ) -> list[FileIdentity]:
        """Content decides it: where the files lie and when they were written does not matter."""
        return [self._identity_of(file, hash_file) for file in self._chosen(files)]

    def _identity_of(self, file: SourceFile, hash_file: Callable[[Path], str]) -> FileIdentity:
        with readable(file.path):
            return FileIdentity(file.name, file.path.stat().st_size, hash_file(file.path))

    def _chosen(self, files: Sequence[SourceFile] | None) -> Sequence[SourceFile]:
        return self.files if files is None else files


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns the system's refusal to read `path` into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: cannot read it: {error.strerror or error}",
            fix="make the file readable, or choose files that are",
        ) from error
