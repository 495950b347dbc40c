"""The user's own text: `files:PATTERN` over plain text, JSON lines and parquet."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from nanochat.dataset.document import Document, Source, SourceFile, readable
from nanochat.dataset.readers import parquet_text_bytes, read_jsonl, read_parquet, read_text
from nanochat.errors import DataError

READERS: dict[str, Callable[[Path], Iterator[Document]]] = {
    ".txt": read_text,
    ".md": read_text,
    ".rst": read_text,
    ".text": read_text,
    ".py": read_text,
    ".jsonl": read_jsonl,
    ".parquet": read_parquet,
}


class FilesSource(Source):
    """Files in the order of their names."""

    def __init__(self, spec: str, files: Iterable[SourceFile]) -> None:
        super().__init__(spec, sorted(files))

    @classmethod
    def matching(cls, spec: str, base: Path) -> FilesSource:
        """Those of KIND:PATTERN. Names are relative to the pattern's fixed folder, and relative
        patterns to `base`.

        Raises DataError where nothing matches or a file is of another kind.
        """
        kind, _, pattern = spec.partition(":")
        path = expanded(pattern)
        if (base / path).is_file():  # though its name may look like a pattern
            folder, rest = base / path.parent, glob.escape(path.name)
        else:
            folder, rest = _fixed_folder(path)
            folder = base / folder
        matches = [folder / name for name in glob.glob(rest, root_dir=folder, recursive=True)]
        paths = [path for path in matches if not path.is_dir()]
        if not paths and matches:
            raise DataError(
                f"{spec}: {matches[0]} is a folder",
                fix=f"name the files in it: --data '{kind}:{pattern.rstrip('/')}/**/*.txt'",
            )
        if not paths:
            raise DataError(
                f"{spec}: no file matches {folder / rest}",
                fix=f"check the path; ** reaches into folders: --data '{kind}:~/text/**/*.txt'",
            )
        for path in paths:
            if not os.access(path, os.R_OK):
                with readable(path):
                    path.open("rb").close()
            if path.suffix.lower() not in READERS:
                raise DataError(
                    f"{path}: cannot read this kind of file",
                    fix=f"choose files that end in {', '.join(READERS)}",
                )
        return cls(spec, [SourceFile(path.relative_to(folder).as_posix(), path) for path in paths])

    def documents(self, files: Sequence[SourceFile] | None = None) -> Iterator[Document]:
        for file in self._chosen(files):
            yield from READERS[file.path.suffix.lower()](file.path)

    def text_bytes(self, files: Sequence[SourceFile] | None = None) -> int:
        total = 0
        for file in self._chosen(files):
            if file.path.suffix.lower() == ".parquet":
                total += parquet_text_bytes(file.path)
            else:
                with readable(file.path):
                    total += file.path.stat().st_size
        return total


def expanded(path: str) -> Path:
    """With the home folder that a leading ~ stands for. Raises DataError where it is nobody's."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {error}", fix="write the whole path") from error


def _fixed_folder(pattern: Path) -> tuple[Path, str]:
    """The part of `pattern` before its first wildcard, which is in no file's name, and the rest."""
    fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts[:-1]))
    return Path(*fixed), str(Path(*pattern.parts[len(fixed) :]))
