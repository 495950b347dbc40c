"""The user's keys: an agent's, and those in files, which a passphrase may lock."""

from __future__ import annotations

import base64
import binascii
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentSSH

from launcher.ssh import prompts
from launcher.ssh.target import SshTarget

LOCKED = "is locked by a passphrase and no agent holds it"
NOT_OPENED = "is locked by a passphrase, and no right one was typed"
UNSUPPORTED = "is of a format that is not supported"
MAX_TRIES = 3  # as OpenSSH
KEY_AGENT_SECONDS = 30.0  # the agent may ask its user, or wait for a finger on a token

_unlocked: dict[Path, Any] = {}  # of this process; None: the user gave no passphrase
_unlock_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class KeyCandidate:
    """A key to try. `label`: what it is, in messages. `key`: None while a passphrase locks it."""

    label: str
    key: Any  # paramiko's
    path: Path | None = None

    def unlock(self) -> Any:
        """The key, its passphrase asked for where it is locked: once for all hosts. None where no
        right one was given."""
        if self.key is not None or self.path is None:
            return self.key
        with _unlock_lock:
            if self.path not in _unlocked:
                _unlocked[self.path] = _ask_passphrase(self.path)
            return _unlocked[self.path]


def key_candidates(
    target: SshTarget, agent_keys: list[Any], *, may_prompt: bool
) -> tuple[list[KeyCandidate], dict[Path, str]]:
    """The keys in the order to try them, and why some cannot be.

    The node's own key, keys of the agent that are also configured as files, the agent's others, key
    files, locked ones last. As ssh does, but for the first: with `ssh -i` the agent's go before it,
    and a host hangs up after six. `may_prompt`: whether the user may be asked for passphrases.
    """
    agent = {
        key.asbytes(): KeyCandidate(f"{key.comment or key.get_name()} (agent)", key)
        for key in agent_keys
    }
    files = {path: _public_part(path) for path in target.key_files if path.is_file()}
    configured = [agent[blob] for blob in files.values() if blob in agent]
    others = [] if target.identities_only else list(agent.values())
    loaded: dict[Path, KeyCandidate] = {}
    unusable: dict[Path, str] = {}
    for path, blob in files.items():
        if blob in agent:
            continue
        try:
            loaded[path] = KeyCandidate(str(path), paramiko.PKey.from_path(path), path)
        except (TypeError, paramiko.PasswordRequiredException):
            if may_prompt:
                loaded[path] = KeyCandidate(str(path), None, path)
            else:
                unusable[path] = LOCKED
        except Exception:  # cryptography has many for what it cannot read
            unusable[path] = UNSUPPORTED
    in_files = sorted(loaded.values(), key=lambda candidate: candidate.key is None)
    ordered = [*configured, *others, *in_files]
    if target.node_key:
        own = agent.get(files[target.node_key] or b"") or loaded.get(target.node_key)
        ordered.sort(key=lambda candidate: candidate is not own)
    return list(dict.fromkeys(ordered)), unusable


def _ask_passphrase(path: Path) -> Any:
    for _ in range(MAX_TRIES):
        passphrase = prompts.ask(f"passphrase of {_display_path(path)}: ")
        if not passphrase:
            return None
        try:
            return paramiko.PKey.from_path(path, passphrase.encode())
        except ValueError:  # it is another one
            continue
        except Exception:  # of a format that is not supported
            return None
    return None


def _display_path(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _public_part(path: Path) -> bytes | None:
    """Of a key file, from the .pub beside it, or itself where it is one, or its private part in
    OpenSSH's format, which tells it even while a passphrase locks it."""
    for file in (path.with_name(path.name + ".pub"), path):
        try:
            fields = file.read_text(encoding="utf-8").split()
            if fields[0].startswith(("ssh-", "ecdsa-", "sk-")):
                return base64.b64decode(fields[1], validate=True)
            if fields[1:4] == ["OPENSSH", "PRIVATE", "KEY-----"]:
                message = paramiko.Message(base64.b64decode("".join(fields[4:-4])))
                message.get_bytes(len(b"openssh-key-v1\0"))
                for _ in ("cipher", "key derivation", "its options"):
                    message.get_binary()
                message.get_int()  # how many keys: one
                return message.get_binary()
        except (OSError, UnicodeDecodeError, IndexError, binascii.Error):
            continue
    return None


@contextmanager
def connect_agent(target: SshTarget) -> Iterator[list[Any]]:
    """What the user's agent holds, and the line to it kept open. Nothing where there is none."""
    if sys.platform == "win32":
        with closing(paramiko.Agent()) as agent:
            yield list(agent.get_keys())
    elif target.agent_socket is None:
        yield []
    else:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(KEY_AGENT_SECONDS)
            agent = AgentSSH()
            try:
                line.connect(target.agent_socket)
                agent._connect(line)  # paramiko.Agent only knows the socket of SSH_AUTH_SOCK
            except (OSError, paramiko.SSHException):  # left over from an earlier login
                yield []
                return
            yield list(agent.get_keys())
