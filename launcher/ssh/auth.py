"""Logging in to a host: with the user's keys, then by what the user types.

No key leaves this machine: the agent or paramiko signs what the host asks to have signed. What is
typed stays in this process's memory, so that a host that is reached again does not ask again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import paramiko

from launcher.errors import ConnectionLost, HostTimeout, LoginRefused
from launcher.ssh import prompts
from launcher.ssh.process import GONE
from launcher.ssh.target import SSH_PORT, SshTarget
from launcher.ssh.user_keys import (
    LOCKED,
    NOT_OPENED,
    TRIES,
    Candidate,
    agent_keys,
    candidates,
)

ANSWER_SECONDS = 600.0  # for a person; sshd itself hangs up after 120 s (LoginGraceTime)
SLOW_SECONDS = 20.0  # a host that hangs up after more of them did not wait for the user

_passwords: dict[tuple[str, str], str] = {}  # of this process: user and place -> what was typed


def log_in(transport: paramiko.Transport, target: SshTarget) -> None:
    """Try the keys one after the other; where none is enough, ask the user.

    Raises LoginRefused with what was tried, ConnectionLost where the host has hung up while the
    user was asked.
    """
    asks = target.asks and prompts.can_ask()
    with agent_keys(target) as held:
        keys, unusable = candidates(target, held, asks=asks)
        _Login(transport, target, keys, unusable, asks).run()


class _Login:
    def __init__(
        self, transport: paramiko.Transport, target: SshTarget, keys: Sequence[Candidate],
        unusable: dict[Path, str], asks: bool,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._target = target
        self._keys = iter(keys)  # goes on where a host wants a second one
        self._unusable = unusable
        self._asks = asks
        self._who = f"{target.user}@{target.address}"
        self._began, self._asked = time.monotonic(), prompts.asked()
        self._tried: list[str] = []  # keys
        self._typed = 0  # passwords and other answers
        self._gave_up = False

    def run(self) -> None:
        """A host may want several methods, one after the other."""
        methods = (
            ("publickey", self._by_key),
            ("keyboard-interactive", self._by_answers),
            ("password", self._by_password),
        )
        wanted, partly = self._first_wanted(), False
        while wanted:
            for method, attempt in methods:
                left = attempt() if method in wanted else None
                if left is not None:
                    wanted, partly = left, True
                    break
            else:
                raise self._refused(wanted, partly)

    def _first_wanted(self) -> list[str]:
        """Nothing where the host lets everybody in. Asking is no attempt that counts."""
        user = self._target.user
        try:
            left: list[str] = self._call(self._transport.auth_none, user)
            return left
        except paramiko.BadAuthenticationType as error:
            return list(error.allowed_types)
        except paramiko.AuthenticationException:
            return ["publickey"]

    def _by_key(self) -> list[str] | None:
        """What the host still wants; None where it accepts no key."""
        for candidate in self._keys:
            key = candidate.opened()
            if key is None and candidate.path is not None:
                self._unusable[candidate.path] = NOT_OPENED
                continue
            self._tried.append(candidate.label)
            left = self._offer(self._transport.auth_publickey, self._target.user, key)
            if left is not None:
                return left
        return None

    def _by_password(self) -> list[str] | None:
        for _ in range(TRIES):
            if self._gave_up or not (password := self._password()):
                return None
            user = self._target.user
            left = self._offer(self._transport.auth_password, user, password, None, False)
            if left is not None:
                return left
            _passwords.pop(self._account, None)
        return None

    def _by_answers(self) -> list[str] | None:
        """Whatever the host asks: a password, a one-time code."""
        if not self._asks:
            return None
        patience, self._transport.auth_timeout = self._transport.auth_timeout, ANSWER_SECONDS
        try:
            for _ in range(TRIES):
                before = self._typed
                user = self._target.user
                left = self._offer(self._transport.auth_interactive, user, self._answers)
                if left is not None:
                    return left
                _passwords.pop(self._account, None)
                if self._typed == before:  # nothing was asked: there is the other method
                    return None
                if self._gave_up:
                    return None
        finally:
            self._transport.auth_timeout = patience
        self._gave_up = True  # the other method would ask for the same password
        return None

    def _answers(
        self, title: str, instructions: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str]:
        """Called by paramiko's thread: it may not raise."""
        answers = []
        for prompt, echo in prompts:
            if not echo and prompt.strip().rstrip(":").lower() == "password":
                answer = self._password()
            else:
                words = f"{instructions}\n{prompt}" if instructions.strip() else prompt
                answer = self._ask(f"{self._who} ({self._target.name}) asks: {words}", echo=echo)
            answers.append(answer or "")
        return answers

    @property
    def _account(self) -> tuple[str, str]:
        return self._target.user, self._target.place

    def _password(self) -> str | None:
        """The one that was typed before, where the host has not refused it."""
        if self._account not in _passwords:
            text = f"password of {self._who} ({self._target.name}): "
            if not (typed := self._ask(text)):
                return None
            _passwords[self._account] = typed
        else:
            self._typed += 1
        return _passwords[self._account]

    def _ask(self, text: str, *, echo: bool = False) -> str | None:
        answer = prompts.ask(text, echo=echo) if self._asks and not self._gave_up else None
        if answer:
            self._typed += 1
        else:
            self._gave_up = True
        return answer

    def _offer(self, method: Callable[..., Any], *arguments: Any) -> list[str] | None:
        """What the host still wants after it, None where it is not accepted."""
        try:
            left: list[str] = self._call(method, *arguments)
        except paramiko.AuthenticationException:
            return None
        return left

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Raises paramiko's AuthenticationException where the host says no and waits for more."""
        try:
            return method(*arguments)
        except GONE as error:
            target, transport = self._target, self._transport
            if "timeout" in str(error).lower():
                seconds = f"{transport.auth_timeout:g} s"
                message = f"no answer to the login of {target.user} within {seconds}"
                raise HostTimeout(target.name, message, fix="try again: it may be busy") from None
            if transport.is_active():
                if isinstance(error, paramiko.AuthenticationException):
                    raise
                raise paramiko.AuthenticationException(str(error)) from None
            refused = isinstance(error, paramiko.AuthenticationException) or len(self._tried) > 1
            slow = time.monotonic() - self._began > SLOW_SECONDS
            waited = slow and prompts.asked() > self._asked
            if (self._tried or self._typed) and refused and not waited:
                raise self._hung_up() from None
            message = f"the connection to {target.address} was lost during the login"
            raise ConnectionLost(target.name, message, fix="try again") from None

    def _hung_up(self) -> LoginRefused:
        tried = f"{len(self._tried)} keys" if self._tried or not self._typed else ""
        typed = f"{self._typed} answers" if self._typed else ""
        after = " and ".join(words for words in (tried, typed) if words)
        message = f"{self._who} hung up after {after}"
        message += f": {', '.join(self._tried)}" if self._tried else ""
        fix = f"name the right one: `key:` of node {self._target.name!r} in the cluster file"
        return LoginRefused(self._target.name, message, fix=fix)

    def _refused(self, wanted: Sequence[str], partly: bool) -> LoginRefused:
        """With all that was tried. `partly`: something has been accepted, but is not enough."""
        target, who = self._target, self._who
        port = f" -p {target.port}" if target.port != SSH_PORT else ""
        fix = f"ssh-copy-id{port} {who}   or correct `user:` and `key:` of node {target.name!r}"
        if partly:
            first = "a key" if self._tried else "a password"
            message = f"{who} wants {' or '.join(wanted)} besides {first}"
            message += "" if self._asks else ", and there is no terminal to ask for it"
            fix = "let this key log in alone"
        elif "publickey" not in wanted:
            message = f"{who} takes no keys, only {', '.join(wanted)}"
            fix = "allow them: PubkeyAuthentication yes in its sshd_config"
        elif self._tried:
            message = f"{who} accepts none of these keys: {', '.join(self._tried)}"
        else:
            message = f"there is no key here to log in to {who} with"
            fix = fix if self._unusable else f"ssh-keygen -t ed25519 && {fix}"
        message += "\n  what was typed is not accepted" if self._typed else ""
        for path, reason in self._unusable.items():
            message += f"\n  not tried: {path} {reason}"
        reasons = (LOCKED, NOT_OPENED)
        if locked := [path for path, reason in self._unusable.items() if reason in reasons]:
            fix = f"ssh-add {locked[0]}   or: {fix}"
        if target.note:
            message += f"\n  {target.note}"
        return LoginRefused(target.name, message, fix=fix)
