"""Where recipe files and this machine's state live."""

from __future__ import annotations

import difflib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import launcher
from launcher.errors import NotFound

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that its name finds. `origin`: here (./recipes), home (LAUNCH_HOME) or shipped."""

    name: str
    path: Path
    origin: str


def launch_home() -> Path:
    """The folder of all client state: $LAUNCH_HOME, else the platform's user data folder."""
    if home := os.environ.get("LAUNCH_HOME"):
        return Path(home).expanduser().absolute()
    return _user_data() / "launch"


def shipped_recipes() -> Path:
    """Inside an installed wheel, else (a checkout, an editable install) at the repository root."""
    package = Path(launcher.__file__).parent
    installed = package / "shipped" / "recipes"
    return installed if installed.is_dir() else package.parent / "recipes"


def recipe_folders() -> dict[str, Path]:
    """Origin -> folder, in the order in which a name is looked up. They need not exist."""
    return {
        "here": Path("recipes"),
        "home": launch_home() / "recipes",
        "shipped": shipped_recipes(),
    }


def list_recipes() -> list[RecipeFile]:
    """Every recipe that a name can reach; the first folder that has a name wins."""
    found: dict[str, RecipeFile] = {}
    for origin, folder in recipe_folders().items():
        for path in sorted(folder.glob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                found.setdefault(path.stem, RecipeFile(path.stem, path, origin))
    return list(found.values())


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe, by name or (with a separator or a YAML suffix) by path.

    Raises NotFound with the nearest names.
    """
    if is_path(name_or_path):
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return path
        raise NotFound(f"no recipe file {name_or_path}", fix=_known_recipes())
    for recipe in list_recipes():
        if recipe.name == name_or_path:
            return recipe.path
    nearest = difflib.get_close_matches(name_or_path, [recipe.name for recipe in list_recipes()])
    hint = f": did you mean {' or '.join(nearest)}?" if nearest else ""
    raise NotFound(f"no recipe named {name_or_path!r}{hint}", fix=_known_recipes())


def is_path(name_or_path: str) -> bool:
    separators = (os.sep, os.altsep or os.sep)
    return name_or_path.endswith(SUFFIXES) or any(mark in name_or_path for mark in separators)


def shown_path(path: Path) -> str:
    """As a person would type it from the current folder."""
    here = Path.cwd()
    absolute = here / path
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def _known_recipes() -> str:
    names = ", ".join(f"{recipe.name} ({recipe.origin})" for recipe in list_recipes())
    return f"use one of {names}, or the path of a file" if names else "give the path of a file"


def _user_data() -> Path:
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if sys.platform == "darwin":
        return home / "Library" / "Application Support"
    return Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
