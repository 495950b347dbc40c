"""What a run's processes write and read: one JSON object, with a type."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from nanochat.atomic_write import write_atomically


class Record(BaseModel):
    """Base of all records. Keys that this version does not know are kept and written again."""

    model_config = ConfigDict(
        extra="allow", frozen=True, populate_by_name=True, use_attribute_docstrings=True
    )

    def as_json(self) -> dict[str, Any]:
        """Return what is written: keys that were never set are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a file. None if it is missing, torn by a crash, or not of this type."""
        content = read_json(path)
        return None if content is None else cls.parse(content)

    @classmethod
    def parse(cls, content: Any) -> Self | None:
        """Return None if the content is not of this type."""
        try:
            return cls.model_validate(content)
        except ValidationError:
            return None

    @classmethod
    def parse_all(cls, contents: Iterable[Any]) -> Iterator[Self]:
        """Skip what is not of this type: one bad line must not hide the others."""
        for content in contents:
            if (record := cls.parse(content)) is not None:
                yield record

    def to_bytes(self) -> bytes:
        """Return the content of its file."""
        return json.dumps(self.as_json(), indent=1).encode() + b"\n"

    def write(self, path: Path) -> None:
        """Replace a file. Readers see the old content or the new, also after a power cut."""
        write_json(path, self.as_json())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a small file at once, flushed to the disk.

    Raises FileNotFoundError if its folder is gone: a run that was removed must not come back.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "its folder is gone", str(path))
    write_atomically(path, json.dumps(content, indent=1).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read one JSON object. None if it is missing, torn by a crash, or something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return content if isinstance(content, dict) else None
