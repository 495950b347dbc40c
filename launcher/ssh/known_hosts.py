"""Whether a host is the one that it was: known_hosts files in OpenSSH's format."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.config.paths import format_path
from launcher.errors import KeyChanged, Untrusted
from launcher.ssh.target import SshTarget
from nanochat.atomic_write import write_atomically


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
    def label(self) -> str:
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
    def location(self) -> str:
        return f"{format_path(self.file)}:{self.line}"


@dataclass(frozen=True)
class HostKeyVerdict:
    """`status`: known, new, changed or revoked. `entry`: the line that says so."""

    status: str
    entry: KnownKey | None = None


def judge_host_key(target: SshTarget, key: HostKey) -> HostKeyVerdict:
    """What the files say about a key that a host has offered.

    Once the cluster's own file knows the host, it alone decides: a pin is a pin. A key marked
    @revoked in any file is refused. @cert-authority lines are not used.
    """
    files = (target.cluster_known_hosts, *target.known_hosts)
    entries = [entry for path in files for entry in _read_entries(path)]
    named = [entry for entry in entries if _matches_names(entry.names, target.known_host_name)]
    for entry in named:
        if entry.revoked and entry.key == key:
            return HostKeyVerdict("revoked", entry)
    known = _deciding_entries(target, named)
    for entry in known:
        if entry.key == key:
            return HostKeyVerdict("known", entry)
    if known:
        same_kind = [entry for entry in known if entry.key.kind == key.kind]
        return HostKeyVerdict("changed", (same_kind or known)[0])
    # OpenSSH accepts the key of port 22 on another port of the same machine, and so do we.
    same_key = [entry for entry in entries if entry.key == key and not entry.revoked]
    for entry in [] if target.host_key_alias else same_key:
        if _matches_names(entry.names, target.address):
            return HostKeyVerdict("known", entry)
    return HostKeyVerdict("new")


def known_kinds(target: SshTarget) -> list[str]:
    """The key types that this host is known by: those to ask it for."""
    files = (target.cluster_known_hosts, *target.known_hosts)
    entries = [entry for path in files for entry in _read_entries(path)]
    named = [entry for entry in entries if _matches_names(entry.names, target.known_host_name)]
    return list(dict.fromkeys(entry.key.kind for entry in _deciding_entries(target, named)))


def pinned_keys(target: SshTarget) -> list[HostKey]:
    """Those by which the cluster's own file knows this host, and none of its others: a copy of a
    disk has the host key of the original."""
    entries = [entry for entry in _read_entries(target.cluster_known_hosts) if not entry.revoked]
    shared = {
        entry.key
        for entry in entries
        if any(_matches_names(entry.names, other) for other in target.other_node_names)
    }
    own = [entry.key for entry in entries if _matches_names(entry.names, target.known_host_name)]
    return [key for key in own if key not in shared]


def verify_host_key(target: SshTarget, key: HostKey) -> None:
    """Before any login. Raises Untrusted or KeyChanged."""
    verdict = judge_host_key(target, key)
    trust = f"launch cluster trust {target.cluster}"
    if verdict.status == "new":
        message = f"the host key of {target.known_host_name} is not known: {key.label}"
        raise Untrusted(target.name, message, fix=trust)
    if verdict.status == "revoked" and verdict.entry:
        message = f"the host key {key.label} is marked @revoked in {verdict.entry.location}"
        raise Untrusted(target.name, message, fix="give the machine a new host key")
    if verdict.status == "changed" and verdict.entry:
        raise KeyChanged(
            target.name,
            f"HOST KEY CHANGED: {target.known_host_name} is not the machine it was, or says so\n"
            f"  known:   {verdict.entry.key.label}  ({verdict.entry.location})\n"
            f"  offered: {key.label}\n"
            "  It was reinstalled or replaced, or somebody answers in its place. "
            "No login was tried.",
            fix=f"only if you know why the key changed: {trust}",
        )


def pin_host_keys(path: Path, keys: Sequence[tuple[str, HostKey]]) -> None:
    """Write the keys of these names into a cluster's known_hosts file, at once or not at all.

    What the file said about these names goes, all other lines stay.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for name, _ in keys:
        lines = [kept for line in lines if (kept := _without_name(line, name)) is not None]
    for name, key in keys:
        lines.append(f"{name} {key.kind} {base64.b64encode(key.blob).decode()}")
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    path.chmod(0o644)


def _deciding_entries(target: SshTarget, named: Sequence[KnownKey]) -> list[KnownKey]:
    """Of the lines that name a host, those that count: pins, else all others."""
    valid = [entry for entry in named if not entry.revoked]
    return [entry for entry in valid if entry.file == target.cluster_known_hosts] or valid


def _read_entries(path: Path) -> Iterator[KnownKey]:
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


def _matches_names(names: str, host: str) -> bool:
    """Whether a line's first field means this host: names, patterns, !patterns or a hash."""
    found = False
    for name in names.split(","):
        if name.startswith("|1|"):
            found = found or _matches_hash(name, host)
        elif _matches_pattern(name.removeprefix("!").lower(), host.lower()):
            if name.startswith("!"):
                return False
            found = True
    return found


def _matches_pattern(pattern: str, host: str) -> bool:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, host) is not None


def _matches_hash(name: str, host: str) -> bool:
    """|1|salt|HMAC-SHA1 of the name with that salt|"""
    salt, _, digest = name.removeprefix("|1|").partition("|")
    try:
        key, wanted = base64.b64decode(salt), base64.b64decode(digest)
    except binascii.Error:
        return False
    return hmac.compare_digest(hmac.digest(key, host.encode(), "sha1"), wanted)


def _without_name(line: str, host: str) -> str | None:
    """A line that does not name a host any more; None where nothing is left of it."""
    if line.startswith(("#", "@")) or not line.strip() or not _matches_names(line.split()[0], host):
        return line
    names, rest = line.split(maxsplit=1)
    patterns = [name for name in names.split(",") if set(name) & set("*?!")]
    left = [name for name in names.split(",") if name in patterns or not _matches_names(name, host)]
    if _matches_names(",".join(left), host):  # by a pattern, which stays for the other hosts
        left.append(f"!{host}")
    return f"{','.join(left)} {rest}" if left else None
