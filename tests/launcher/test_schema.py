"""The schema that stands beside recipes and clusters, shipped and written."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.config.paths import ConfigKind, shipped_folder
from launcher.config.schema import SCHEMA_FILE, SCHEMA_LINE, schema_text, write_schema


@pytest.mark.parametrize("kind", ["recipe", "cluster"])
def test_a_file_of_the_users_stays(kind: ConfigKind, tmp_path: Path) -> None:
    file = tmp_path / SCHEMA_FILE
    file.write_text('{"mine": 1}')
    write_schema(kind, tmp_path)
    assert file.read_text() == '{"mine": 1}'
    file.write_text(schema_text(kind).replace("[", "[ "))  # of another version of ours
    write_schema(kind, tmp_path)
    assert file.read_text() == schema_text(kind)


@pytest.mark.parametrize("kind", ["recipe", "cluster"])
def test_shipped_files_name_the_schema_beside_them(kind: ConfigKind) -> None:
    """`python -c` with `write_schema(kind, folder)` writes it anew after a key has changed."""
    folder = shipped_folder(kind)
    assert (folder / SCHEMA_FILE).read_text(encoding="utf-8") == schema_text(kind)
    files = list(folder.glob("*.yaml"))
    assert files
    for file in files:
        assert file.read_text(encoding="utf-8").startswith(SCHEMA_LINE), file
