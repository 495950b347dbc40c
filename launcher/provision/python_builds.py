"""Pythons that can be sent to a host: builds of python-build-standalone, found and fetched."""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from launcher.config.paths import launch_home
from launcher.errors import LaunchError
from nanochat.atomic_write import open_atomically
from nanochat.errors import root_cause
from nanochat.file_hash import sha256_of

# A release holds one patch version of each minor, with their hashes in one file. The release and
# the names were read from public projects that use it; GitHub could not be reached from where
# this was written, so the download from there is untried (a local server stands in, in tests).
RELEASES = "https://github.com/astral-sh/python-build-standalone/releases/download"
SILENCE_SECONDS = 10.0  # of the server, before the download is given up
CHUNK_BYTES = 1 << 18
RELEASE = "20260718"
PYTHON_VERSION = re.compile(r"3\.\d+(\.\d+)?$")
FIX = "set environment.python to an install_only .tar.gz of python-build-standalone (path or URL)"


@dataclass(frozen=True)
class PythonBuild:
    """An archive whose top folder is python/. version: x.y.z, or x.y where its name has no more."""

    version: str
    archive: Path
    sha256: str

    @property
    def key(self) -> str:
        return f"{self.version}-{self.sha256[:12]}"

    @property
    def minor(self) -> int:
        return int(self.version.split(".")[1])


def find_python_build(
    wanted: str, architecture: str, *, releases: str | None = None
) -> PythonBuild:
    """A version (3.12, 3.12.4), path or URL of an archive. Raises LaunchError.

    What was downloaded is kept under LAUNCH_HOME/python.
    """
    if PYTHON_VERSION.match(wanted):
        return _release_build(wanted, architecture, releases or RELEASES)
    if wanted.startswith(("http://", "https://")):
        name = wanted.rpartition("/")[2]
        archive = _folder() / hashlib.sha256(wanted.encode()).hexdigest()[:12] / name
        if not archive.exists():
            _download(wanted, archive)
    else:
        archive = Path(wanted).expanduser()
        if not archive.is_file():
            raise LaunchError(f"environment.python: no file {archive}", fix=FIX)
    for other in ("x86_64", "aarch64"):
        if f"-{other}-" in archive.name and other != architecture:
            raise LaunchError(
                f"environment.python: {archive.name} does not run on {architecture}",
                fix="set environment.python to a version: each host gets the build that fits it",
            )
    return PythonBuild(_version(archive), archive, sha256_of(archive))


def _release_build(wanted: str, architecture: str, releases: str) -> PythonBuild:
    """The newest build of the release that a version names, checked against its SHA256SUMS."""
    sums = _folder() / RELEASE / "SHA256SUMS"
    if not sums.exists():
        _download(f"{releases}/{RELEASE}/SHA256SUMS", sums)
    name = re.compile(
        rf"cpython-({re.escape(wanted)}(?:\.\d+)*)\+{RELEASE}-{architecture}-unknown-linux-gnu"
        r"-install_only\.tar\.gz"
    )
    for line in sums.read_text().splitlines():
        sha256, _, file = line.partition(" ")
        if match := name.fullmatch(file.strip(" *")):
            archive = sums.with_name(match[0])
            if not archive.exists():
                _download(f"{releases}/{RELEASE}/{match[0].replace('+', '%2B')}", archive, sha256)
            return PythonBuild(match[1], archive, sha256)
    raise LaunchError(f"no Python {wanted} for {architecture} in release {RELEASE}", fix=FIX)


def _download(url: str, path: Path, sha256: str | None = None) -> None:
    import requests  # 0.1 s, which no other command should take

    headers = {"Accept-Encoding": "identity"}  # the hash is that of the bytes as they are stored
    try:
        with (
            requests.get(url, headers=headers, stream=True, timeout=SILENCE_SECONDS) as answer,
            open_atomically(path) as file,
        ):
            answer.raise_for_status()
            for chunk in answer.iter_content(CHUNK_BYTES):
                file.write(chunk)
            file.flush()
            if sha256 and sha256_of(Path(file.name)) != sha256:
                raise LaunchError(f"{url} is not what its SHA256SUMS says", fix=FIX)
    except (OSError, requests.RequestException) as error:
        raise LaunchError(f"cannot download {url}: {root_cause(error)}", fix=FIX) from None


def _version(archive: Path) -> str:
    """From its name, else from what is in it."""
    if match := re.match(r"cpython-(3\.\d+\.\d+)\+", archive.name.replace("%2B", "+")):
        return match[1]
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if match := re.match(r"python/(?:lib|include)/python(3\.\d+)/", member.name):
                    return match[1]
    except tarfile.TarError as error:
        raise LaunchError(
            f"environment.python: {archive} cannot be read: {error}", fix=FIX
        ) from None
    raise LaunchError(f"environment.python: {archive} has no python/lib/python3.*", fix=FIX)


def _folder() -> Path:
    return launch_home() / "python"
