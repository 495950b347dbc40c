"""Text that is always there: the source of this Python's standard library."""

from __future__ import annotations

import io
import os
import sys
import sysconfig
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

from nanochat.dataset.document import Document, Source, SourceFile, readable
from nanochat.dataset.splitting import split_python
from nanochat.errors import DataError

LEFT_OUT = frozenset(
    ("test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "_bundled")
)
PIECE_CHARACTERS = 2_000  # about 500 tokens: a row of the smaller recipes


class StdlibSource(Source):
    """12 MB in 730 files on CPython 3.11; differs between Python builds."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises DataError where the library is zipped or absent. `folder` is for tests."""
        folder = folder or Path(sysconfig.get_path("stdlib"))
        files = [SourceFile(path.relative_to(folder).as_posix(), path) for path in _sources(folder)]
        if not files:
            raise DataError(
                f"{folder}: {sys.executable} has no .py files of its standard library here",
                fix="give your own text: --data 'files:~/text/**/*.txt'",
            )
        super().__init__("embedded", sorted(files))

    def documents(self, files: Sequence[SourceFile] | None = None) -> Iterator[Document]:
        for file in self._chosen(files):
            with readable(file.path):
                text = decoded(file.path.read_bytes())
            for piece in split_python(text, PIECE_CHARACTERS):
                yield Document(piece, continuous=True)


def _sources(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        yield from (Path(parent, name) for name in names if name.endswith(".py"))


def decoded(source: bytes) -> str:
    """Python source as text, by its PEP 263 coding line; U+FFFD for what that cannot decode."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    except SyntaxError:  # an unknown coding
        encoding = "utf-8"
    return source.decode(encoding, "replace")
