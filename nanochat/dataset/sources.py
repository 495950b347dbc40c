"""Where text comes from, by the name that `--data` gives it. Needs the standard library only."""

from __future__ import annotations

import difflib
from pathlib import Path

from nanochat.dataset.climbmix import (
    ADDRESS,
    CLIMBMIX,
    ClimbmixSource,
    is_address,
    shard_count,
)
from nanochat.dataset.document import Document, FileIdentity, Source, SourceFile
from nanochat.dataset.files import FilesSource, expanded
from nanochat.dataset.stdlib_source import StdlibSource
from nanochat.errors import DataError

__all__ = [
    "Document",
    "FileIdentity",
    "Source",
    "SourceFile",
    "climbmix_source",
    "parse_source",
]

NAMES = {
    "embedded": "embedded",
    "files": "files:PATTERN",
    "climbmix": "climbmix:SHARDS",
    "host": "host:PATTERN",
}
ALTERNATIVES = "use --data embedded, climbmix, --data 'files:~/text/**/*.txt', or 'host:...'"


def parse_source(
    spec: str, base: Path, *, shards: Path | None = None, mirror: str | None = None
) -> Source:
    """`embedded`, `files:PATTERN`, `host:PATTERN` or `climbmix:SHARDS`.

    Relative patterns and mirrors start at `base`, those of host: at the home folder, which `~` is
    too. `shards`: where climbmix is kept; `mirror`: an address or a folder to take it from.
    Raises DataError for any other spec, and where the source is empty or unreadable.
    """
    kind, _, argument = spec.partition(":")
    if spec == "embedded":
        return StdlibSource()
    if kind == "files" and argument:
        return FilesSource.matching(spec, base)
    if kind == "host" and argument:
        return FilesSource.matching(spec, Path.home())
    if kind == CLIMBMIX and shards is not None:
        return climbmix_source(spec, base, shards, mirror)
    if ":" not in spec and any(sign in spec for sign in "/*~\\"):
        raise DataError(f"no data source is called {spec!r}", fix=f"write 'files:{spec}'")
    close = difflib.get_close_matches(kind, NAMES, n=1, cutoff=0.5)
    meant = f"; did you mean {NAMES[close[0]]!r}?" if close else ""
    raise DataError(f"no data source is called {spec!r}{meant}", fix=ALTERNATIVES)


def climbmix_source(spec: str, base: Path, shards: Path, mirror: str | None) -> ClimbmixSource:
    """See `parse_source`."""
    count = shard_count(spec)
    if mirror is not None and not is_address(mirror):
        return ClimbmixSource(count, base / expanded(mirror), address=None)
    return ClimbmixSource(count, shards, mirror or ADDRESS)
