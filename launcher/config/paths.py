"""Where recipe and cluster files and this machine's state live."""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from launcher.errors import NotFound

ConfigKind = Literal["recipe", "cluster"]

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class ConfigFile:
    """A file that its name finds. `origin`: here (./recipes), home (LAUNCH_HOME) or shipped."""

    name: str
    path: Path
    origin: str


def launch_home() -> Path:
    """The folder of all client state: $LAUNCH_HOME, else the platform's user data folder."""
    if home := os.environ.get("LAUNCH_HOME"):
        return Path(home).expanduser().absolute()
    return _user_data() / "launch"


def shipped_folder(kind: ConfigKind) -> Path:
    """Inside an installed wheel, else (a checkout, an editable install) at the repository root."""
    package = Path(__file__).parents[1]
    installed = package / "shipped" / f"{kind}s"
    return installed if installed.is_dir() else package.parent / f"{kind}s"


def config_folders(kind: ConfigKind) -> dict[str, Path]:
    """Origin -> folder, in the order in which a name is looked up. They need not exist."""
    return {
        "here": Path(f"{kind}s"),
        "home": launch_home() / f"{kind}s",
        "shipped": shipped_folder(kind),
    }


def user_folder(kind: ConfigKind) -> Path:
    """Where new files go: ./recipes where that folder exists, else under LAUNCH_HOME."""
    choices = config_folders(kind)
    return choices["here"] if choices["here"].is_dir() else choices["home"]


def list_config_files(kind: ConfigKind) -> list[ConfigFile]:
    """Every file that a name can reach; the first folder that has a name wins."""
    found: dict[str, ConfigFile] = {}
    for origin, folder in config_folders(kind).items():
        for path in sorted(folder.glob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                found.setdefault(path.stem, ConfigFile(path.stem, path, origin))
    return list(found.values())


def find_config_file(kind: ConfigKind, name_or_path: str) -> Path:
    """A file by name or (with a separator or a YAML suffix) by path.

    Raises NotFound with the nearest names.
    """
    files = list_config_files(kind)
    names = ", ".join(f"{file.name} ({file.origin})" for file in files)
    fix = f"use one of {names}, or the path of a file" if names else "give the path of a file"
    if is_path(name_or_path):
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return path
        raise NotFound(f"no {kind} file {name_or_path}", fix=fix)
    for file in files:
        if file.name == name_or_path:
            return file.path
    nearest = difflib.get_close_matches(name_or_path, [file.name for file in files])
    hint = f": did you mean {' or '.join(nearest)}?" if nearest else ""
    raise NotFound(f"no {kind} named {name_or_path!r}{hint}", fix=fix)


def is_path(name_or_path: str) -> bool:
    separators = (os.sep, os.altsep or os.sep)
    return name_or_path.endswith(SUFFIXES) or any(mark in name_or_path for mark in separators)


def format_path(path: Path) -> str:
    """As a person would type it from the current folder."""
    current = Path.cwd()
    absolute = current / path
    return str(absolute.relative_to(current) if absolute.is_relative_to(current) else absolute)


def _user_data() -> Path:
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
