"""Text that a client sends: each content travels once, and the head reads what the client named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from records import make_node

from launcher.agent.text_store import assemble_text, stored_source
from launcher.config.recipe import DataSettings
from launcher.errors import LaunchError
from launcher.raycluster.spec import ClusterSpec
from launcher.remote.upload_text import SMALL_BYTES, _hash_files, upload_text
from launcher.ssh.fake import FakeConnection
from nanochat.dataset.sources import parse_source
from nanochat.progress import no_progress

SPEC = ClusterSpec(
    cluster="home", node="one", nodes=(make_node("one", address="10.0.0.1", interface="eth0"),),
    env="e", code="c", python=None, profile="lan", idle_minutes=30,
)  # fmt: skip


class Head(FakeConnection):
    """A head whose ~/.launch is a folder here, with the real module that receives."""

    def __init__(self, home: Path) -> None:
        super().__init__("one", {"provision.lock": "taken\n"})
        self.home = home
        self.sent: list[str] = []

    def run(self, command: str, **options: Any) -> Any:
        if "launcher.agent.text_store" in command:
            for path, content in self.files.items():
                there = self.home / path.removeprefix(".launch/")
                there.parent.mkdir(parents=True, exist_ok=True)
                there.write_bytes(content)
            self.files.clear()
            missing = assemble_text(self.home, command.split()[-1])
            self.replies.insert(0, ("received", json.dumps(missing)))
        elif command.startswith("[ -e .launch/text/"):
            path = command.split()[2].removeprefix(".launch/")
            self.replies.insert(0, ("text/", str((self.home / path).exists())))
            done = super().run(command, **options)
            return type(done)(0 if "True" in done.stdout else 1, "", "")
        return super().run(command, **options)

    def send(self, local: Path, path: str, **options: Any) -> None:
        self.sent.append(path.rpartition("/")[2])
        super().send(local, path, **options)


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Head:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "client"))
    return Head(tmp_path / "host")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    (folder / "deep").mkdir(parents=True)
    for number in range(50):
        (folder / "deep" / f"{number}.txt").write_text(f"text {number} " * 100)
    (folder / ".hidden.txt").write_text("seen by nobody who looks for *")
    (folder / "large.txt").write_bytes(b"x" * (SMALL_BYTES + 1))
    (folder / "same.txt").write_text("text 7 " * 100)
    return folder


def send(head: Head, base: Path, source: str) -> str:
    hosts = {SPEC.head.name: head}
    sent = upload_text(
        hosts, SPEC, DataSettings(source=source), base, no_progress, lambda message: None
    )
    return sent["source"]


def test_what_was_named_arrives_and_travels_once(head: Head, texts: Path) -> None:
    source = "files:**/*.txt"
    key = send(head, texts, source)
    large = hashlib.sha256((texts / "large.txt").read_bytes()).hexdigest()
    assert len(head.sent) == 2 and head.sent[0] == large and head.sent[1].endswith(".tar")
    there, here = stored_source(head.home, source, key), parse_source(source, texts)
    assert there.identity() == here.identity() and len(there.files) == 52
    assert list(there.documents()) == list(here.documents())
    assert send(head, texts, source) == key and len(head.sent) == 2
    # One file has changed: it alone is sent.
    (texts / "deep" / "3.txt").write_text("another text")
    assert send(head, texts, source) != key and len(head.sent) == 3
    blobs = list((head.home / "text" / "blobs").iterdir())
    assert len(blobs) == 52 and not any(blob.suffix for blob in blobs)  # 51 contents and the new


def test_a_hidden_file_that_is_named_is_read(head: Head, texts: Path) -> None:
    source = f"files:{texts}/.hidden.txt"
    key = send(head, texts, source)
    assert [file.name for file in stored_source(head.home, source, key).files] == [".hidden.txt"]


def test_a_name_that_is_not_utf8_travels(head: Head, tmp_path: Path) -> None:
    name = b"caf\xe9.txt".decode(errors="surrogateescape")
    (tmp_path / name).write_text("latin")
    key = send(head, tmp_path, "files:*.txt")
    assert stored_source(head.home, "files:*.txt", key).files[0].path.read_text() == "latin"


def test_a_file_that_changes_meanwhile_is_noticed(
    head: Head, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _hash_files

    def hash_then_change(*arguments: Any) -> dict[str, str]:
        hashes = real(*arguments)
        (texts / "deep" / "3.txt").write_text("quite another text")
        return hashes

    monkeypatch.setattr("launcher.remote.upload_text._hash_files", hash_then_change)
    with pytest.raises(LaunchError, match=r"3\.txt changed while it was sent"):
        send(head, texts, "files:deep/*.txt")
