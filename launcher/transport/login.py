"""Logging in to a host with the user's keys: an agent's or those in files.

No key leaves this machine: the agent or paramiko signs what the host asks to have signed.
"""

from __future__ import annotations

import base64
import binascii
import socket
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentSSH

from launcher.errors import ConnectionLost, HostTimeout, LoginRefused
from launcher.transport.target import SSH_PORT, Target

LOCKED = "is locked by a passphrase and no agent holds it"
AGENT_SECONDS = 30.0  # the agent may ask its user, or wait for a finger on a token


@dataclass(frozen=True, eq=False)
class Candidate:
    """A key to try. `label`: what it is, in messages."""

    label: str
    key: Any  # paramiko's


def log_in(transport: paramiko.Transport, target: Target) -> None:
    """Try the keys one after the other. Raises LoginRefused with what was tried."""
    with _agent_keys(target) as held:
        candidates, unusable = _candidates(target, held)
        tried: list[str] = []
        for candidate in candidates:
            tried.append(candidate.label)
            if _accepted(transport, target, candidate, tried):
                return
    raise _refused(target, tried, unusable)


def _accepted(
    transport: paramiko.Transport, target: Target, candidate: Candidate, tried: list[str]
) -> bool:
    who = f"{target.user}@{target.address}"
    try:
        missing = transport.auth_publickey(target.user, candidate.key)
    except paramiko.BadAuthenticationType as error:
        message = f"{who} takes no keys, only {', '.join(error.allowed_types) or 'nothing'}"
        fix = "allow them: PubkeyAuthentication yes in its sshd_config"
        raise LoginRefused(target.name, message, fix=fix) from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        if "timeout" in str(error).lower():
            message = f"no answer to the login of {target.user} within {transport.auth_timeout:g} s"
            raise HostTimeout(target.name, message, fix="try again: it may be busy") from None
        if transport.is_active():
            return False
        if isinstance(error, paramiko.AuthenticationException) or len(tried) > 1:
            message = f"{who} hung up after {len(tried)} keys: {', '.join(tried)}"
            fix = f"name the right one: `key:` of node {target.name!r} in the cluster file"
            raise LoginRefused(target.name, message, fix=fix) from None
        message = f"the connection to {target.address} was lost during the login"
        raise ConnectionLost(target.name, message) from None
    if missing:
        message = f"{who} wants {' or '.join(missing)} besides a key: not supported yet"
        raise LoginRefused(target.name, message, fix="let this key log in alone")
    return True


def _refused(target: Target, tried: list[str], unusable: dict[Path, str]) -> LoginRefused:
    who = f"{target.user}@{target.address}"
    port = f" -p {target.port}" if target.port != SSH_PORT else ""
    fix = f"ssh-copy-id{port} {who}   or correct `user:` and `key:` of node {target.name!r}"
    if tried:
        message = f"{who} accepts none of these keys: {', '.join(tried)}"
    else:
        message = f"there is no key here to log in to {who} with"
        fix = fix if unusable else f"ssh-keygen -t ed25519 && {fix}"
    for path, reason in unusable.items():
        message += f"\n  not tried: {path} {reason}"
    if locked := [path for path, reason in unusable.items() if reason == LOCKED]:
        fix = f"ssh-add {locked[0]}   or: {fix}"
    if target.note:
        message += f"\n  {target.note}"
    return LoginRefused(target.name, message, fix=fix)


def _candidates(target: Target, held: list[Any]) -> tuple[list[Candidate], dict[Path, str]]:
    """The keys in the order to try them, and why some cannot be.

    The node's own key, keys of the agent that are also configured as files, the agent's others, key
    files. As ssh does, but for the first: with `ssh -i` the agent's go before it, and a host hangs
    up after six.
    """
    agent = {
        key.asbytes(): Candidate(f"{key.comment or key.get_name()} (agent)", key) for key in held
    }
    files = {path: _public_part(path) for path in target.keys if path.is_file()}
    configured = [agent[blob] for blob in files.values() if blob in agent]
    others = [] if target.identities_only else list(agent.values())
    loaded: dict[Path, Candidate] = {}
    unusable: dict[Path, str] = {}
    for path, blob in files.items():
        if blob in agent:
            continue
        try:
            loaded[path] = Candidate(str(path), paramiko.PKey.from_path(path))
        except (TypeError, paramiko.PasswordRequiredException):
            unusable[path] = LOCKED
        except Exception:  # cryptography has many for what it cannot read
            unusable[path] = "is of a format that is not supported"
    ordered = [*configured, *others, *loaded.values()]
    if target.first_key:
        own = agent.get(files[target.first_key] or b"") or loaded.get(target.first_key)
        ordered.sort(key=lambda candidate: candidate is not own)
    return list(dict.fromkeys(ordered)), unusable


def _public_part(path: Path) -> bytes | None:
    """Of a key file, from the .pub beside it, or itself where it is one."""
    for file in (path.with_name(path.name + ".pub"), path):
        try:
            fields = file.read_text(encoding="utf-8").split()
            if fields[0].startswith(("ssh-", "ecdsa-", "sk-")):
                return base64.b64decode(fields[1], validate=True)
        except (OSError, UnicodeDecodeError, IndexError, binascii.Error):
            continue
    return None


@contextmanager
def _agent_keys(target: Target) -> Iterator[list[Any]]:
    """What the user's agent holds, and the line to it kept open. Nothing where there is none."""
    if sys.platform == "win32":
        with closing(paramiko.Agent()) as agent:
            yield list(agent.get_keys())
    elif target.agent is None:
        yield []
    else:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(AGENT_SECONDS)
            agent = AgentSSH()
            try:
                line.connect(target.agent)
                agent._connect(line)  # paramiko.Agent only knows the socket of SSH_AUTH_SOCK
            except (OSError, paramiko.SSHException):  # left over from an earlier login
                yield []
                return
            yield list(agent.get_keys())
