"""Text that clients have sent, on the head: each content once, whatever texts it is part of.

    text/blobs/SHA256   contents; SHA256.tar: small ones that came together
    text/KEY.json       [SHA256, name] of every file of a text
    text/KEY/NAME       the files, hard links to blobs: there once all of them are

`python -P -m launcher.agent.text_store KEY` unpacks what came, prints the hashes that are missing
as JSON, and makes KEY/ if none is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path

from launcher.config.paths import launch_home
from nanochat.atomic_write import write_atomically
from nanochat.dataset.document import SourceFile
from nanochat.dataset.files import FilesSource

TEXT = "text"  # under ~/.launch
BLOBS = f"{TEXT}/blobs"


def assemble_text(home: Path, key: str) -> list[str]:
    """Hashes that are still missing; none: the text's folder is there. `home`: ~/.launch."""
    folder, blobs = home / TEXT / key, home / BLOBS
    for tar in blobs.glob("*.tar"):
        _unpack(tar)
    files = _read_listing(home, key)
    missing = [digest for digest in dict.fromkeys(files.values()) if not (blobs / digest).exists()]
    if missing or folder.exists():
        return missing
    partial = folder.with_name(f"{key}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, digest in files.items():
        path = partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(blobs / digest, path)
    partial.rename(folder)
    return []


def stored_source(home: Path, spec: str, key: str) -> FilesSource:
    """What a client's `spec` (files:...) named there."""
    folder = home / TEXT / key
    return FilesSource(spec, [SourceFile(name, folder / name) for name in _read_listing(home, key)])


def _read_listing(home: Path, key: str) -> dict[str, str]:
    """Name -> hash."""
    listing = json.loads((home / TEXT / f"{key}.json").read_bytes())
    return {name: digest for digest, name in listing}


def _unpack(tar: Path) -> None:
    """What is not what its name says, a file that changed while it was sent, is passed over."""
    with tarfile.open(tar) as archive:
        for member in archive:
            file = archive.extractfile(member)
            content = file.read() if file else b""
            if hashlib.sha256(content).hexdigest() == member.name:
                write_atomically(tar.with_name(member.name), content)
    tar.unlink()


if __name__ == "__main__":
    print(json.dumps(assemble_text(launch_home(), *sys.argv[1:])))
