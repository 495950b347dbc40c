"""JSON Schemas of our files, for editors: they complete keys and show what each means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launcher.config.cluster import Cluster
from launcher.config.paths import ConfigKind
from launcher.config.recipe import Recipe
from launcher.config.strict_model import StrictModel
from nanochat.atomic_write import write_atomically

SCHEMA_FILE = "schema.json"
# The first line of a file: it tells editors where its schema is, seen from the file.
SCHEMA_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE}\n"
MODELS: dict[ConfigKind, type[StrictModel]] = {"recipe": Recipe, "cluster": Cluster}


def json_schema(kind: ConfigKind) -> dict[str, Any]:
    return MODELS[kind].model_json_schema()


def schema_text(kind: ConfigKind) -> str:
    """Return the content of the schema file of a folder of recipes or clusters."""
    return json.dumps(json_schema(kind), indent=2) + "\n"


def write_schema(kind: ConfigKind, folder: Path) -> None:
    """Put the schema beside the files that name it: the folder can be moved or shared.

    A file of that name that is not ours stays.
    """
    file = folder / SCHEMA_FILE
    if not file.exists() or _is_ours(kind, file):
        write_atomically(file, schema_text(kind).encode())


def _is_ours(kind: ConfigKind, file: Path) -> bool:
    """Whether any version of this program has written the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("title") == MODELS[kind].__name__
