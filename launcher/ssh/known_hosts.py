"""Whether a host is the one that it was: known_hosts files in OpenSSH's format."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.config.paths import format_path
from launcher.errors import KeyChanged, Untrusted
from launcher.ssh.target import SshTarget


@dataclass(frozen=True)
class HostKey:
    """`kind`: its type as OpenSSH writes it, e.g. ssh-ed25519. `blob`: the public key."""

    kind: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return f"SHA256:{digest.rstrip('=')}"

    @property
    def shown(self) -> str:
        """As ssh-keygen -l would: ED25519 SHA256:..."""
        return f"{self.kind.removeprefix('ssh-').split('-')[0].upper()} {self.fingerprint}"


@dataclass(frozen=True)
class KnownKey:
    """A line of a known_hosts file."""

    names: str  # with commas; hashed, or patterns
    key: HostKey
    file: Path
    line: int  # the first is 1
    revoked: bool

    @property
    def where(self) -> str:
        return f"{format_path(self.file)}:{self.line}"


@dataclass(frozen=True)
class Verdict:
    """`status`: known, new, changed or revoked. `entry`: the line that says so."""

    status: str
    entry: KnownKey | None = None


def judge_host_key(target: SshTarget, key: HostKey) -> Verdict:
    """What the files say about a key that a host has shown.

    Once the cluster's own file knows the host, it alone decides: a pin is a pin. A key marked
    @revoked in any file is refused. @cert-authority lines are not used.
    """
    entries = [entry for path in (target.pins, *target.known_hosts) for entry in _entries(path)]
    named = [entry for entry in entries if _names(entry.names, target.place)]
    for entry in named:
        if entry.revoked and entry.key == key:
            return Verdict("revoked", entry)
    known = _deciding(target, named)
    for entry in known:
        if entry.key == key:
            return Verdict("known", entry)
    if known:
        same_kind = [entry for entry in known if entry.key.kind == key.kind]
        return Verdict("changed", (same_kind or known)[0])
    # OpenSSH accepts the key of port 22 on another port of the same machine, and so do we.
    same_key = [entry for entry in entries if entry.key == key and not entry.revoked]
    for entry in [] if target.host_key_alias else same_key:
        if _names(entry.names, target.address):
            return Verdict("known", entry)
    return Verdict("new")


def known_kinds(target: SshTarget) -> list[str]:
    """The key types that this host is known by: those to ask it for."""
    entries = [entry for path in (target.pins, *target.known_hosts) for entry in _entries(path)]
    named = [entry for entry in entries if _names(entry.names, target.place)]
    return list(dict.fromkeys(entry.key.kind for entry in _deciding(target, named)))


def pinned_keys(target: SshTarget) -> list[HostKey]:
    """Those by which the cluster's own file knows this host, and none of its others: a copy of a
    disk has the host key of the original."""
    entries = [entry for entry in _entries(target.pins) if not entry.revoked]
    shared = {
        entry.key for entry in entries if any(_names(entry.names, each) for each in target.others)
    }
    own = [entry.key for entry in entries if _names(entry.names, target.place)]
    return [key for key in own if key not in shared]


def verify_host_key(target: SshTarget, key: HostKey) -> None:
    """Before any login. Raises Untrusted or KeyChanged."""
    verdict = judge_host_key(target, key)
    trust = f"launch cluster trust {target.cluster}"
    if verdict.status == "new":
        message = f"the host key of {target.place} is not known: {key.shown}"
        raise Untrusted(target.name, message, fix=trust)
    if verdict.status == "revoked" and verdict.entry:
        message = f"the host key {key.shown} is marked @revoked in {verdict.entry.where}"
        raise Untrusted(target.name, message, fix="give the machine a new host key")
    if verdict.status == "changed" and verdict.entry:
        raise KeyChanged(
            target.name,
            f"HOST KEY CHANGED: {target.place} is not the machine it was, or says so\n"
            f"  known:   {verdict.entry.key.shown}  ({verdict.entry.where})\n"
            f"  offered: {key.shown}\n"
            "  It was reinstalled or replaced, or somebody answers in its place. "
            "No login was tried.",
            fix=f"only if you know why the key changed: {trust}",
        )


def pin_host_keys(path: Path, keys: Sequence[tuple[str, HostKey]]) -> None:
    """Write the keys of these places into a cluster's known_hosts file, at once or not at all.

    What the file said about these places goes, all other lines stay.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for place, _ in keys:
        lines = [kept for line in lines if (kept := _without(line, place)) is not None]
    for place, key in keys:
        lines.append(f"{place} {key.kind} {base64.b64encode(key.blob).decode()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _deciding(target: SshTarget, named: Sequence[KnownKey]) -> list[KnownKey]:
    """Of the lines that name a host, those that count: pins, else all others."""
    valid = [entry for entry in named if not entry.revoked]
    return [entry for entry in valid if entry.file == target.pins] or valid


def _entries(path: Path) -> Iterator[KnownKey]:
    """Lines that cannot be read are passed over, as OpenSSH does; so is a file that is not there.

    @cert-authority is among them.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        revoked = fields[:1] == ["@revoked"]
        fields = fields[1:] if revoked else fields
        if len(fields) < 3 or fields[0].startswith(("#", "@")):
            continue
        try:
            key = HostKey(fields[1], base64.b64decode(fields[2], validate=True))
        except binascii.Error:
            continue
        yield KnownKey(fields[0], key, path, number, revoked)


def _names(names: str, place: str) -> bool:
    """Whether a line's first field means this place: names, patterns, !patterns or a hash."""
    found = False
    for name in names.split(","):
        if name.startswith("|1|"):
            found = found or _hashed(name, place)
        elif _matches(name.removeprefix("!").lower(), place.lower()):
            if name.startswith("!"):
                return False
            found = True
    return found


def _matches(pattern: str, place: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, place) is not None


def _hashed(name: str, place: str) -> bool:
    """|1|salt|HMAC-SHA1 of the name with that salt|"""
    salt, _, digest = name.removeprefix("|1|").partition("|")
    try:
        key, wanted = base64.b64decode(salt), base64.b64decode(digest)
    except binascii.Error:
        return False
    return hmac.compare_digest(hmac.digest(key, place.encode(), "sha1"), wanted)


def _without(line: str, place: str) -> str | None:
    """A line that does not name a place any more; None where nothing is left of it."""
    if line.startswith(("#", "@")) or not line.strip() or not _names(line.split()[0], place):
        return line
    names, rest = line.split(maxsplit=1)
    patterns = [name for name in names.split(",") if set(name) & set("*?!")]
    left = [name for name in names.split(",") if name in patterns or not _names(name, place)]
    if _names(",".join(left), place):  # by a pattern, which stays for the other places
        left.append(f"!{place}")
    return f"{','.join(left)} {rest}" if left else None
