"""What a folder of prepared data says about itself: manifest.json, written last."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass
from typing import Any

from nanochat.dataset.document import FileIdentity, content_hash

FORMAT = "nanochat-rows"
FORMAT_VERSION = 1
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class RowBlock:
    """One file of rows."""

    name: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitManifest:
    """The rows of one split and the text that they came from.

    `bytes` are of text. `tokens` are those in rows; `cropped_tokens` those of documents that got
    into none (if few validation documents are packed again and again: in the first round). A
    document that is split between the two counts in both.
    """

    source: str
    files: tuple[FileIdentity, ...]
    blocks: tuple[RowBlock, ...]
    documents: int
    bytes: int
    tokens: int
    cropped_tokens: int

    @property
    def rows(self) -> int:
        return sum(block.rows for block in self.blocks)

    def blocks_of(self, rows: int) -> tuple[RowBlock, ...]:
        """Those that hold its first `rows` rows."""
        ends = itertools.accumulate(block.rows for block in self.blocks)
        count = sum(end < rows for end in ends) + 1 if rows > 0 else 0
        return self.blocks[:count]

    def digest(self, rows: int) -> str:
        """What its first `rows` rows hold, as a hash of the hashes of their blocks."""
        return content_hash([block.sha256 for block in self.blocks_of(rows)])


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`identity` is the hash of all that decides the rows. Not `complete`: there will be more rows
    to train on."""

    identity: str
    sequence_length: int
    vocab_size: int
    tokenizer_sha256: str
    packing_version: int
    train: SplitManifest
    validation: SplitManifest
    complete: bool = True

    @property
    def blocks(self) -> tuple[RowBlock, ...]:
        return self.train.blocks + self.validation.blocks

    def to_json(self) -> bytes:
        content = {"format": FORMAT, "version": FORMAT_VERSION, **asdict(self)}
        for name in ("train", "validation"):
            content[name]["files"] = [file._asdict() for file in getattr(self, name).files]
        return json.dumps(content, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Raises ValueError, KeyError or TypeError where it is not of this format."""
        content: dict[str, Any] = json.loads(data)
        if (content.pop("format"), content.pop("version")) != (FORMAT, FORMAT_VERSION):
            raise ValueError(f"expected {FORMAT} version {FORMAT_VERSION}")
        train, validation = (
            _parse_split(content.pop("train")),
            _parse_split(content.pop("validation")),
        )
        return cls(**content, train=train, validation=validation)


def _parse_split(content: dict[str, Any]) -> SplitManifest:
    files = tuple(FileIdentity(**file) for file in content.pop("files"))
    blocks = tuple(RowBlock(**block) for block in content.pop("blocks"))
    return SplitManifest(**content, files=files, blocks=blocks)
