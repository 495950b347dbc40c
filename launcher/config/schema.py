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
    """Put the schema beside the files that name it: the folder can be moved or shared."""
    write_atomically(folder / SCHEMA_FILE, schema_text(kind).encode())
