"""What a run's processes write and read: one JSON object, with a type."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from launcher.runs.foreign_json import parse_json_object
from nanochat.atomic_write import write_atomically

# The context of what is read from a file, in place of made by this version.
LENIENT, STRICT = "lenient", "strict"


def _at_most(high: float, *, low: float) -> AfterValidator:
    """Bound what damaged disks, hosts and other versions say. What this version writes is not
    refused: a clock that was set back makes negative durations."""

    def check(value: float, info: ValidationInfo) -> float:
        if info.context is not None and not low <= value <= high:
            raise ValueError(f"{value:.3g} is out of range")
        return value

    return AfterValidator(check)


MAX_TIMESTAMP = 2.5e11  # in the year 9892: time.localtime ends in 9999
Count = Annotated[int, _at_most(2**62, low=0)]
Amount = Annotated[int | float, _at_most(2**62, low=0)]
Seconds = Annotated[float, _at_most(1e11, low=-1e11)]
Timestamp = Annotated[float, _at_most(MAX_TIMESTAMP, low=0)]


class Record(BaseModel):
    """Base of all records. Keys that this version does not know are kept and written again.

    In a file, an optional key with a wrong value counts as one that is not there: whoever looks at
    a run of another version, or of a damaged disk, learns the rest.
    """

    model_config = ConfigDict(
        extra="allow", frozen=True, populate_by_name=True, use_attribute_docstrings=True
    )

    @model_validator(mode="wrap")
    @classmethod
    def _without_wrong_options(
        cls, content: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            return handler(content)
        except ValidationError as error:
            if info.context != LENIENT or not isinstance(content, dict):
                raise
            required = {
                field.validation_alias or name
                for name, field in cls.model_fields.items()
                if field.is_required()
            }
            wrong = {entry["loc"][0] for entry in error.errors() if entry["loc"]}
            if not wrong or wrong & required:
                raise
            return handler({key: value for key, value in content.items() if key not in wrong})

    def as_json(self) -> dict[str, Any]:
        """Return what is written: keys that were never set are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a file. None if it is missing, torn by a crash, or not of this type.

        Raises OSError if it cannot be read.
        """
        content = read_json(path)
        return None if content is None else cls.parse(content)

    @classmethod
    def parse(cls, content: Any) -> Self | None:
        """Return None if the content is not of this type."""
        try:
            return cls.require(content)
        except ValidationError:
            return None

    @classmethod
    def require(cls, content: Any, *, strict: bool = False) -> Self:
        """Return the record of what a file says.

        Raises ValidationError if a required key is missing or wrong; `strict`: any key.
        """
        context = STRICT if strict else LENIENT
        return cls.model_validate(content, context=context, by_alias=True, by_name=False)

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
    """Read one JSON object. None if it is missing, torn by a crash, or something else.

    Raises OSError if it cannot be read.
    """
    try:
        return parse_json_object(path.read_bytes()) if path.is_file() else None  # no pipe
    except FileNotFoundError:
        return None
