"""The host that is not there, which other tests rely on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from launcher.errors import CommandFailed, ConnectionLost
from launcher.ssh.fake import FakeConnection
from launcher.ssh.protocol import Completed, Connection


def test_it_answers_and_remembers() -> None:
    fake = FakeConnection("one", {"^uname": "Linux\n", "df|du": Completed(1, "", "no df")})
    connection: Connection = fake
    assert connection.check("uname -s", step="asking") == "Linux\n"
    with pytest.raises(CommandFailed, match="one: measuring failed with exit status 1: no df"):
        connection.check("du -s", step="measuring", stdin=b"x")
    with pytest.raises(AssertionError, match="asking: no reply for this command: rm -rf /"):
        connection.run("rm -rf /", step="asking")
    assert fake.ran == ["uname -s", "du -s", "rm -rf /"]
    assert fake.inputs == [b"", b"x", b""]


def test_it_can_be_lost() -> None:
    fake = FakeConnection(replies=[("sleep", ConnectionLost("one", "gone")), (".", "awake")])
    with pytest.raises(ConnectionLost):
        fake.run("sleep 1", step="waiting")
    assert fake.run("date", step="waiting").stdout == "awake"


def test_it_has_files(tmp_path: Path) -> None:
    fake = FakeConnection(files={"log": b"12345"})
    assert fake.read("log", 3) == b"45"
    with pytest.raises(FileNotFoundError):
        fake.read("none")
    fake.write("token", b"secret", mode=0o600)
    assert (fake.files["token"], fake.modes["token"]) == (b"secret", 0o600)
    sha256, seen = hashlib.sha256(b"secret").hexdigest(), list[int]()
    fake.fetch("token", tmp_path / "token", sha256=sha256, on_bytes=seen.append)
    fake.send(tmp_path / "token", "copy", sha256=sha256, on_bytes=seen.append)
    assert (fake.files["copy"], seen) == (b"secret", [6, 6])
    with pytest.raises(CommandFailed, match="another hash"):
        fake.send(tmp_path / "token", "copy", sha256="0" * 64)
