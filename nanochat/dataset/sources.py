"""Where text comes from, by the name that `--data` gives it. Needs the standard library only."""

from __future__ import annotations

import difflib
from pathlib import Path

from nanochat.dataset.document import Document, FileIdentity, Source, SourceFile
from nanochat.dataset.embedded import EmbeddedSource
from nanochat.dataset.files import FilesSource
from nanochat.errors import DataError

__all__ = ["Document", "FileIdentity", "Source", "SourceFile", "parse_source"]

ALTERNATIVES = "Use --data embedded, or --data 'files:~/text/**/*.txt'."


def parse_source(spec: str, base: Path) -> Source:
    """`embedded` or `files:GLOB`; relative globs start at `base`, `~` is the home folder.

    Raises DataError for any other spec, and where the source is empty or unreadable.
    """
    kind, _, argument = spec.partition(":")
    if spec == "embedded":
        return EmbeddedSource()
    if kind == "files" and argument:
        return FilesSource.matching(argument, base)
    if kind == "climbmix":
        raise DataError(f"the data source {spec!r} is not supported yet", fix=ALTERNATIVES)
    close = difflib.get_close_matches(kind, ("embedded", "files"), n=1, cutoff=0.5)
    names = {"embedded": "embedded", "files": "files:GLOB"}
    meant = f"; did you mean {names[close[0]]!r}?" if close else ""
    raise DataError(f"no data source is called {spec!r}{meant}", fix=ALTERNATIVES)
