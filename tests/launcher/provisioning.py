"""Small real parts for the tests of provisioning: facts, wheels, archives."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

GIB = 1 << 30


def facts(*versions: str, **changed: Any) -> Any:
    """What provisioning reads of HostFacts: a bare Debian host with these Pythons."""
    pythons = tuple(
        SimpleNamespace(path=f"/usr/bin/python{v.rpartition('.')[0]}", version=v) for v in versions
    )
    known: dict[str, Any] = {
        "system": "Linux",
        "architecture": "x86_64",
        "glibc": "2.36",
        "home": "/home/ada",
        "disk_free_bytes": 50 * GIB,
        "pythons": pythons,
        "ready": {},
    }
    return SimpleNamespace(**known | changed)


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    tag: str = "py3-none-any",
    requires: tuple[str, ...] = (),
) -> Path:
    """A wheel that pip takes, with one module of one line."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    for line in requires:
        if "extra ==" in line:
            metadata.append(f"Provides-Extra: {line.split(chr(34))[1]}\n")
        metadata.append(f"Requires-Dist: {line}\n")
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": "".join(metadata),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


def make_build(path: Path, minor: int = 12) -> str:
    """An archive shaped like python-build-standalone's install_only. Returns its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name in (f"python/lib/python3.{minor}/os.py", "python/bin/python3"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return hashlib.sha256(path.read_bytes()).hexdigest()
