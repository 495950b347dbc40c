"""JSON Schemas of our files, for editors: they complete keys and show what each means."""

from __future__ import annotations

import json
from typing import Any

from launcher.config.block import StrictModel
from launcher.config.cluster import Cluster
from launcher.config.paths import Kind, launch_home
from launcher.config.recipe import Recipe

MODELS: dict[Kind, type[StrictModel]] = {"recipe": Recipe, "cluster": Cluster}


def schema(kind: Kind) -> dict[str, Any]:
    return MODELS[kind].model_json_schema()


def schema_line(kind: Kind) -> str:
    """The comment at the top of a file that points editors to its schema, which it writes.

    A URI: the path of LAUNCH_HOME has a space on macOS, which would end the comment's value.
    """
    path = launch_home() / "schema" / f"{kind}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(schema(kind), indent=2) + "\n", encoding="utf-8")
    return f"# yaml-language-server: $schema={path.as_uri()}\n"
