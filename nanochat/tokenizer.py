"""Byte-level BPE: trained by rustbpe, encoded by tiktoken, saved as one JSON file.

The ids of a vocabulary of size V: 0..255 are the single bytes, then come the merges in the order
in which they were found, and the last 9 ids, V-9..V-1, are the special tokens. A text too small
for V-9-256 merges leaves a gap of unused ids below the special ones.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tiktoken

from nanochat.atomic_write import write_atomically
from nanochat.errors import DataError

BOS = "<|bos|>"
SPECIAL_TOKENS = (
    BOS,  # starts every document
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
# Upstream's: GPT-4's with at most 2 digits to a token, which it found best at 32,768 entries.
SPLIT_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
FORMAT = "nanochat-tokenizer"
FORMAT_VERSION = 1
TRAINER_VERSION = 2  # part of a trained tokenizer's cache key: raise it when training changes
# The regex engine of both libraries panics on a run of 1,000,000 spaces ("StackOverflow").
LONGEST_SEGMENT = 400_000
MAX_CHARACTERS = 1_000_000_000  # of text to train on


class Tokenizer:
    """`tokens`: bytes in rank order, the 256 single bytes first."""

    def __init__(
        self, tokens: Sequence[bytes], vocab_size: int, pattern: str = SPLIT_PATTERN
    ) -> None:
        self.tokens = tuple(tokens)
        self.vocab_size = vocab_size
        self.pattern = pattern
        first_special = vocab_size - len(SPECIAL_TOKENS)
        self.special_ids = {name: first_special + i for i, name in enumerate(SPECIAL_TOKENS)}
        self.bos_id = self.special_ids[BOS]
        unused = [b""] * (first_special - len(self.tokens))
        self._bytes = [*self.tokens, *unused, *(name.encode() for name in SPECIAL_TOKENS)]
        self._encoding = tiktoken.Encoding(
            "nanochat",
            pat_str=pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(self.tokens)},
            special_tokens=self.special_ids,
        )

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, *, max_characters: int = MAX_CHARACTERS
    ) -> Tokenizer:
        """Learn the merges from the first `max_characters` of `texts`. The same on any core count.

        Raises ValueError where `vocab_size` leaves no room for 256 bytes and the special tokens.
        """
        if vocab_size < 256 + len(SPECIAL_TOKENS):
            raise ValueError(f"vocab_size is {vocab_size}, must be at least 265")
        import rustbpe

        trainer = rustbpe.Tokenizer()
        trainer.train_from_iterator(
            _limited(texts, max_characters),
            vocab_size - len(SPECIAL_TOKENS),
            pattern=SPLIT_PATTERN,
        )
        ranked = sorted(trainer.get_mergeable_ranks(), key=lambda entry: entry[1])
        return cls([bytes(token) for token, _ in ranked], vocab_size)

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Raises DataError where the file is missing or not a tokenizer of this format."""
        try:
            return cls(**_parsed(json.loads(path.read_bytes())))
        except OSError as error:
            raise DataError(f"{path}: cannot read the tokenizer: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: not a tokenizer: {error}",
                fix="delete the file: the next preparation of the data writes it again",
            ) from error

    def save(self, path: Path) -> None:
        """Write the canonical bytes, atomically."""
        write_atomically(path, self._canonical)

    @cached_property
    def _canonical(self) -> bytes:
        content = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "vocab_size": self.vocab_size,
            "pattern": self.pattern,
            "special_tokens": SPECIAL_TOKENS,
            "tokens": [base64.b64encode(token).decode() for token in self.tokens],
        }
        return json.dumps(content, indent=0).encode() + b"\n"

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the saved file."""
        return hashlib.sha256(self._canonical).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Ids without BOS; special tokens in `text` are plain text."""
        if len(text) <= LONGEST_SEGMENT:
            return self._encoding.encode_ordinary(text)
        return [i for part in _segments(text) for i in self._encoding.encode_ordinary(part)]

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        """`encode` without a Python object per token, and without the interpreter's lock."""
        parts = [
            self._encoding.encode_to_numpy(part, disallowed_special=()) for part in _segments(text)
        ]
        return np.concatenate([np.empty(0, np.uint32), *parts])

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Special tokens appear by name; unused ids are empty."""
        return b"".join(self._bytes[i] for i in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """`decode_bytes` as text, with U+FFFD where bytes are not UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def token_bytes(self) -> npt.NDArray[np.int32]:
        """(vocab_size,) bytes of each id; 0 for special and unused ids. For bits per byte."""
        lengths = np.zeros(self.vocab_size, dtype=np.int32)
        lengths[: len(self.tokens)] = [len(token) for token in self.tokens]
        return lengths


class StreamDecoder:
    """Ids one at a time -> text, holding back the bytes of an unfinished UTF-8 character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that are whole now; may be empty. Invalid bytes become U+FFFD."""
        return self._decoder.decode(self._tokenizer.decode_bytes((token,)))

    def flush(self) -> str:
        """What is left, at the end: U+FFFD for an unfinished character, else nothing."""
        return self._decoder.decode(b"", final=True)


def encodable(text: str) -> str:
    """`text` with pairs of surrogates joined and lone ones replaced by U+FFFD, as tiktoken does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _segments(text: str) -> Iterator[str]:
    for start in range(0, len(text), LONGEST_SEGMENT):
        yield text[start : start + LONGEST_SEGMENT]


def _limited(texts: Iterable[str], max_characters: int) -> Iterator[str]:
    left = max_characters
    for text in texts:
        yield from _segments(encodable(text[:left]))
        left -= len(text)
        if left <= 0:
            return


def _parsed(content: Any) -> dict[str, Any]:
    """Arguments of Tokenizer from a saved file's JSON. Raises ValueError, KeyError, TypeError."""
    if content["format"] != FORMAT or content["version"] != FORMAT_VERSION:
        raise ValueError(f"expected {FORMAT} version {FORMAT_VERSION}")
    if content["special_tokens"] != list(SPECIAL_TOKENS):
        raise ValueError("its special tokens are not nanochat's")
    try:
        tokens = [base64.b64decode(token, validate=True) for token in content["tokens"]]
    except binascii.Error as error:
        raise ValueError(f"a token is not base64 ({error})") from error
    if tokens[:256] != [bytes([byte]) for byte in range(256)]:
        raise ValueError("its first 256 tokens are not the single bytes")
    if len(set(tokens)) != len(tokens):
        raise ValueError("a token appears twice")
    vocab_size, pattern = content["vocab_size"], content["pattern"]
    if not isinstance(vocab_size, int) or len(tokens) + len(SPECIAL_TOKENS) > vocab_size:
        raise ValueError(f"{len(tokens)} tokens do not fit a vocabulary of {vocab_size!r}")
    if not isinstance(pattern, str):
        raise ValueError("its pattern is not a string")
    return {"tokens": tokens, "vocab_size": vocab_size, "pattern": pattern}
