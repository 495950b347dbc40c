"""Logging in with what the user knows: passphrases of key files, passwords, one-time codes.

They are asked for at a terminal only, kept for this process and written nowhere.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paramiko

from launcher.config.paths import shown_path
from launcher.errors import LoginRefused
from launcher.transport.questions import ask, can_ask
from launcher.transport.target import SSH_PORT, Target

TRIES = 3
PASSWORD, INTERACTIVE = "password", "keyboard-interactive"

_keys: dict[Path, Any] = {}  # None: the user did not want to
_passwords: dict[str, str] = {}
_one_at_a_time = threading.Lock()


def who(target: Target) -> str:
    return f"{target.user}@{target.address}"


def unlocked(file: Path | None) -> Any:
    """The key of a locked file, for which all hosts together ask once. None where the user presses
    Enter only, or types a wrong passphrase three times."""
    if file is None:
        return None
    with _one_at_a_time:
        if file not in _keys:
            _keys[file] = _unlock(file)
        return _keys[file]


def _unlock(file: Path) -> Any:
    again = ""
    for _ in range(TRIES):
        passphrase = ask(f"{again}passphrase of {shown_path(file)}: ")
        if not passphrase:
            return None
        with contextlib.suppress(Exception):  # cryptography has many for a wrong one
            return paramiko.PKey.from_path(file, passphrase.encode())
        again = "that is not it; "
    return None


def log_in_by_words(
    transport: paramiko.Transport, target: Target, allowed: Sequence[str] | None
) -> bool:
    """By a password, or the answers to what the host asks. `allowed`: its ways; None: not known.

    False where it has no such way, or nobody can be asked or wants to answer. Raises LoginRefused
    where the answers were wrong.
    """
    if not can_ask():
        return False
    if allowed is None:
        allowed = _allowed(transport, target)
    if PASSWORD in allowed:
        return _by_password(transport, target)
    if INTERACTIVE in allowed:
        return _by_answers(transport, target)
    return False


def _allowed(transport: paramiko.Transport, target: Target) -> Sequence[str]:
    try:
        transport.auth_none(target.user)
    except paramiko.BadAuthenticationType as error:
        return list(error.allowed_types)
    except (paramiko.SSHException, EOFError, OSError):
        pass
    return []


def _by_password(transport: paramiko.Transport, target: Target) -> bool:
    place = who(target) + (f":{target.port}" if target.port != SSH_PORT else "")
    again = ""
    for _ in range(TRIES):
        with _one_at_a_time:
            password = _passwords.get(place) or ask(f"{again}password of {place} ({target.name}): ")
        if not password:
            return False
        try:
            missing = transport.auth_password(target.user, password, fallback=False)
        except paramiko.AuthenticationException:
            _passwords.pop(place, None)
            again = "that is not it; "
            continue
        except (paramiko.SSHException, EOFError, OSError):
            break
        _passwords[place] = password
        return not missing or log_in_by_words(transport, target, missing)
    raise _wrong(target, "password")


def _by_answers(transport: paramiko.Transport, target: Target) -> bool:
    """What it asks is shown with the host's name, so that no other host is taken for it."""
    asked = False

    def answers(title: str, instructions: str, prompts: Sequence[tuple[str, bool]]) -> list[str]:
        nonlocal asked
        asked = asked or bool(prompts)
        with _one_at_a_time:
            return [ask(f"{who(target)} ({target.name}) asks: {prompt}") for prompt, _ in prompts]

    for _ in range(TRIES):
        try:
            missing = transport.auth_interactive(target.user, answers)
        except paramiko.AuthenticationException:
            if not asked:
                return False
            continue
        except (paramiko.SSHException, EOFError, OSError):
            break
        return not missing or log_in_by_words(transport, target, missing)
    raise _wrong(target, "answers")


def _wrong(target: Target, what: str) -> LoginRefused:
    message = f"{who(target)} does not take the {what}"
    fix = f"try it: ssh {target.user}@{target.address}   or correct `user:` of node {target.name!r}"
    return LoginRefused(target.name, message, fix=fix)
