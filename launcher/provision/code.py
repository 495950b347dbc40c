"""This project's own code as it is on disk, for the hosts to run."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import nanochat
from launcher.config.paths import launch_home
from launcher.provision.lock import KEY_LENGTH
from nanochat.atomic_write import sha256_of

PACKAGES = (Path(__file__).parents[1], Path(str(nanochat.__file__)).parent)
SKIPPED = {"__pycache__", "shipped"}  # shipped: files for people, read on the client


@dataclass(frozen=True)
class Code:
    """key: of names and contents, whatever machine packed them."""

    key: str
    archive: Path
    sha256: str


def pack_code(packages: tuple[Path, ...] = PACKAGES) -> Code:
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
    key = digest.hexdigest()[:KEY_LENGTH]
    archive = launch_home() / "code" / f"{key}.tar.gz"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        partial = archive.with_name(f"{key}.{os.getpid()}.partial")
        partial.write_bytes(_tar(files))
        partial.replace(archive)
    return Code(key, archive, sha256_of(archive))


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
