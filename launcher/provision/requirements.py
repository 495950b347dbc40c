"""What a host needs installed: this package's own requirements, and where torch comes from."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from launcher.hosts.platform import Platform

if TYPE_CHECKING:
    from launcher.config.cluster import Environment

PACKAGE = "nanochat-launcher"
EXTRA = "train"

# PyTorch's own indexes, used where nobody names another. 2.13's stable builds are for CUDA 12.6
# and 13.0 (PyPI's own is 13.0) and ROCm 7.2: pytorch/pytorch, RELEASE.md (pull request 187075).
# A build's local version ("2.13.0+cpu") wins over PyPI's plain one. Not reachable from where this
# was written: untried.
TORCH_INDEX = {
    "cpu": "https://download.pytorch.org/whl/cpu",
    "cuda": "https://download.pytorch.org/whl/cu130",
    "rocm": "https://download.pytorch.org/whl/rocm7.2",
    "cu126": "https://download.pytorch.org/whl/cu126",
}
INDEX_OPTIONS = ("index-url", "extra-index-url", "find-links")  # in a pip configuration


def host_requirements(target: Platform, lines: Iterable[str] | None = None) -> list[str]:
    """Requirements of a host that trains, without markers: those that do not apply are left out."""
    found = []
    for line in requires(PACKAGE) or () if lines is None else lines:
        requirement = Requirement(line)
        if _applies(requirement, target):
            requirement.marker = None
            found.append(str(requirement))
    return sorted(found)


def pinned_version(name: str) -> str | None:
    """Of a package that this one requires in one version only."""
    for line in requires(PACKAGE) or ():
        requirement = Requirement(line)
        pins = [
            specifier.version for specifier in requirement.specifier if specifier.operator == "=="
        ]
        if requirement.name == name and pins:
            return pins[0]
    return None


def index_options(environment: Environment, target: Platform) -> list[str]:
    """pip's options, besides what the client's own pip configuration says and pip reads by itself.

    PyTorch's index is added only where neither the cluster file nor that configuration names one.
    """
    options = cluster_index_options(environment)
    if options or pip_configures_index():
        return options
    return ["--extra-index-url", TORCH_INDEX[target.build or target.accelerator]]


def cluster_index_options(environment: Environment) -> list[str]:
    """The cluster file's own."""
    named = (
        ("--index-url", environment.index_url),
        ("--extra-index-url", environment.extra_index_url),
        ("--find-links", environment.find_links),
    )
    return [word for option, value in named if value for word in (option, value)]


def pip_configures_index() -> bool:
    """Whether the pip configuration of this machine (files and PIP_*) names an index of its own."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    )
    keys = [line.partition("=")[0].rpartition(".")[2] for line in listed.stdout.splitlines()]
    return any(key in INDEX_OPTIONS for key in keys)


def pip_fingerprint() -> str:
    """Changes when the pip configuration does, without the 0.5 s of asking pip."""
    digest = hashlib.sha256()
    for name in sorted(name for name in os.environ if name.startswith("PIP_")):
        digest.update(f"{name}={os.environ[name]}\n".encode())
    for path in _pip_files():
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _pip_files() -> list[Path]:
    """Where pip looks (its user guide, "Configuration files")."""
    home, name = Path.home(), "pip.ini" if sys.platform == "win32" else "pip.conf"
    folders = [Path(sys.prefix), Path("/etc"), home / ".pip"]
    if sys.platform == "win32":
        folders += [Path(os.environ.get("APPDATA", home)) / "pip", home / "pip"]
        folders += [Path(os.environ.get("PROGRAMDATA", "C:/ProgramData")) / "pip"]
    else:
        folders += [Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip"]
        folders += [home / "Library/Application Support/pip"]
        shared = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
        folders += [Path(folder) / "pip" for folder in shared.split(":")]
        folders += [Path("/Library/Application Support/pip")]
    return [folder / name for folder in folders]


def _applies(requirement: Requirement, target: Platform) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(
        {**target.markers, "extra": EXTRA}
    )
