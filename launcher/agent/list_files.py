"""What `host:PATTERN` names on a host: `python -P -m launcher.agent.list_files host:PATTERN` prints
[name, SHA-256] of every file as JSON, or {"message": ..., "fix": ...} where there is nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from launcher.config.paths import launch_home
from nanochat.dataset.sources import parse_source
from nanochat.errors import DataError
from nanochat.file_hash import FileHashes


def list_source_files(spec: str, home: Path) -> list[list[str]] | dict[str, str | None]:
    """Files of the same size and time as last time are not read again."""
    hashes = FileHashes(home / "data" / "file-hashes.json")
    try:
        identities = parse_source(spec, home).identity(hash_file=hashes.sha256)
    except DataError as error:
        return {"message": error.message, "fix": error.fix}
    hashes.save()
    return [[file.name, file.sha256] for file in identities]


if __name__ == "__main__":
    print(json.dumps(list_source_files(sys.argv[1], launch_home())))
