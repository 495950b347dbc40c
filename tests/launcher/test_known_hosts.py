"""known_hosts files: which line decides about a key, and what `cluster trust` writes."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.ssh.known_hosts import (
    HostKey,
    judge_host_key,
    known_kinds,
    pin_host_keys,
    pinned_keys,
)
from launcher.ssh.target import SshTarget

ED, OTHER = HostKey("ssh-ed25519", b"the key"), HostKey("ssh-ed25519", b"another key")
RSA = HostKey("ssh-rsa", b"an rsa key")


def text(key: HostKey) -> str:
    return f"{key.kind} {base64.b64encode(key.blob).decode()}"


def target(
    folder: Path, pins: str, known: str, *, port: int = 22, alias: str | None = None
) -> SshTarget:
    (folder / "c.known_hosts").write_text(pins)
    (folder / "known_hosts").write_text(known)
    return SshTarget(
        name="one", address="pc1.lan", port=port, user="ada", cluster="c",
        cluster_known_hosts=folder / "c.known_hosts",
        known_hosts=(folder / "known_hosts", folder / "none"),
        node_key=None, key_files=(), identities_only=False, agent_socket=None, host_key_alias=alias,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pins", "known", "status"),
    [
        ("", "", "new"),
        ("pc1.lan ED", "", "known c.known_hosts:1"),
        ("\n# a comment\nother,PC1.lan ED a comment", "", "known c.known_hosts:3"),
        ("", "pc1.lan ED", "known known_hosts:1"),
        ("", "p?1.* ED", "known known_hosts:1"),
        ("", "*.lan,!pc1.lan ED", "new"),
        ("", "pc1xlan ED", "new"),
        ("", "[pc1.lan]:2222 ED", "new"),
        ("", "pc1.lan OTHER\npc1.lan ED", "known known_hosts:2"),
        ("", "pc1.lan RSA\npc1.lan OTHER", "changed known_hosts:2"),
        ("", "pc1.lan RSA", "changed known_hosts:1"),  # it may not have its old key any more
        ("pc1.lan OTHER", "pc1.lan ED", "changed c.known_hosts:1"),
        ("pc1.lan ED", "pc1.lan OTHER", "known c.known_hosts:1"),
        ("pc1.lan ED", "@revoked pc1.lan ED", "revoked known_hosts:1"),
        ("@revoked pc1.lan OTHER", "pc1.lan ED", "known known_hosts:1"),
        ("", "@cert-authority pc1.lan ED", "new"),
        ("", "pc1.lan ssh-ed25519 !!!\npc1.lan ssh-ed25519\npc1.lan", "new"),
    ],
)
def test_which_line_decides(tmp_path: Path, pins: str, known: str, status: str) -> None:
    keys = {" ED": f" {text(ED)}", " OTHER": f" {text(OTHER)}", " RSA": f" {text(RSA)}"}
    for short, whole in keys.items():
        pins, known = pins.replace(short, whole), known.replace(short, whole)
    verdict = judge_host_key(target(tmp_path, pins, known), ED)
    where = f" {verdict.entry.file.name}:{verdict.entry.line}" if verdict.entry else ""
    assert verdict.status + where == status


def test_ports_and_aliases(tmp_path: Path) -> None:
    pins = f"[pc1.lan]:2222 {text(OTHER)}\nthe-pc {text(RSA)}\npc1.lan {text(ED)}\n"
    assert judge_host_key(target(tmp_path, pins, "", port=2222), OTHER).status == "known"
    assert judge_host_key(target(tmp_path, pins, "", port=2222), ED).status == "changed"
    assert judge_host_key(target(tmp_path, pins, "", port=2223), ED).status == "known"
    assert judge_host_key(target(tmp_path, pins, "", port=2223), OTHER).status == "new"
    assert (
        judge_host_key(target(tmp_path, pins, "", port=2222, alias="the-pc"), RSA).status == "known"
    )


def test_the_kinds_to_ask_for(tmp_path: Path) -> None:
    known = f"pc1.lan {text(RSA)}\nother {text(ED)}\n"
    assert known_kinds(target(tmp_path, "", known)) == ["ssh-rsa"]
    assert known_kinds(target(tmp_path, f"pc1.lan {text(ED)}\n", known)) == ["ssh-ed25519"]
    assert known_kinds(target(tmp_path, "", "")) == []


def test_a_fingerprint_is_openssh_s() -> None:
    blob = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"  # GitHub's
    key = HostKey("ssh-ed25519", base64.b64decode(blob))
    assert key.label == "ED25519 SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "pc1.lan {ed}\n"),
        ("# mine\nother {rsa}\n", "# mine\nother {rsa}\npc1.lan {ed}\n"),
        ("pc1.lan {rsa}\nother {rsa}\npc1.lan {other}", "other {rsa}\npc1.lan {ed}\n"),
        ("a,pc1.lan,b {rsa} c\n", "a,b {rsa} c\npc1.lan {ed}\n"),
        ("*.lan {rsa}\n", "*.lan,!pc1.lan {rsa}\npc1.lan {ed}\n"),
        ("@revoked pc1.lan {rsa}\n", "@revoked pc1.lan {rsa}\npc1.lan {ed}\n"),
    ],
)
def test_pinning(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "c.known_hosts"
    keys = {"ed": text(ED), "rsa": text(RSA), "other": text(OTHER)}
    if before:
        path.write_text(before.format(**keys))
    pin_host_keys(path, [("pc1.lan", ED)])
    assert path.read_text() == after.format(**keys)
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tmp_path.iterdir()] == ["c.known_hosts"]


@pytest.mark.parametrize(
    ("pins", "keys"),
    [
        (f"pc1.lan {text(ED)}\nold {text(ED)}\npc1.lan {text(RSA)}", [ED, RSA]),
        (f"pc1.lan {text(ED)}\npc2 {text(ED)}", []),  # a copy of its disk is in another node
        (f"@revoked pc1.lan {text(ED)}\npc2 {text(OTHER)}", []),
    ],
)
def test_keys_that_no_other_node_has(tmp_path: Path, pins: str, keys: list[HostKey]) -> None:
    known = f"pc1.lan {text(OTHER)}"  # the user's file says nothing about this
    one = replace(target(tmp_path, pins, known), other_node_names=("pc2", "[pc3]:2222"))
    assert pinned_keys(one) == keys
