"""This project's own code as it is on disk, for the hosts to run."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import nanochat
from launcher.config.paths import launch_home
from launcher.provision.lockfile import KEY_DIGITS
from nanochat.atomic_write import write_atomically
from nanochat.file_hash import sha256_of

PACKAGES = (Path(__file__).parents[1], Path(str(nanochat.__file__)).parent)
SKIPPED = {"__pycache__", "shipped"}  # shipped: files for people, read on the client


@dataclass(frozen=True)
class CodeArchive:
    """The packed code of both packages."""

    key: str
    """A hash of names and contents, the same on whatever machine packed them."""
    archive: Path
    sha256: str


def pack_code(packages: tuple[Path, ...] = PACKAGES) -> CodeArchive:
    """An archive of the packages' files under LAUNCH_HOME/code, made where it is not there yet."""
    files = {
        f"{package.name}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for package in packages
        for path in sorted(package.rglob("*"))
        if path.is_file() and not SKIPPED & set(path.relative_to(package).parts)
    }
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    key = digest.hexdigest()[:KEY_DIGITS]
    archive = launch_home() / "code" / f"{key}.tar.gz"
    if not archive.exists():
        write_atomically(archive, _tar(files))
    return CodeArchive(key, archive, sha256_of(archive))


def _tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w") as tar,
    ):
        for name, data in files.items():
            info = tarfile.TarInfo(name)  # no owner, no time
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()
