"""What the tests of this folder share: one small prepared text."""

from __future__ import annotations

import json

import pytest
import torch
from tiny import SEQUENCE_LENGTH, VOCAB_SIZE

from nanochat.dataset import PreparedData
from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import parse_source
from nanochat.dataset.stdlib_source import StdlibSource


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Matrices this small are slower on several threads, much slower on busy cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """1,200 pieces of the standard library in rows of 32 tokens, with a vocabulary of 512."""
    folder = tmp_path_factory.mktemp("prepared")
    source = StdlibSource()
    pieces = [document.text for document in source.documents(source.files[:100])][:1200]
    text = folder / "text.jsonl"
    text.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces))
    return prepare(
        parse_source(f"files:{text}", folder),
        cache=folder / "cache",
        sequence_length=SEQUENCE_LENGTH,
        vocab_size=VOCAB_SIZE,
        validation=None,
        threads=2,
        on_progress=lambda stage, done, total: None,
    )
