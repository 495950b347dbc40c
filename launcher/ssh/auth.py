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

from launcher.config.address import SSH_PORT
from launcher.errors import ConnectionLost, HostTimeout, LoginRefused
from launcher.formatting import format_duration
from launcher.ssh import prompts
from launcher.ssh.process import CONNECTION_ERRORS
from launcher.ssh.target import SshTarget
from launcher.ssh.user_keys import (
    LOCKED,
    MAX_TRIES,
    NOT_OPENED,
    KeyCandidate,
    connect_agent,
    key_candidates,
)

USER_ANSWER_SECONDS = 600.0  # for a person; sshd itself hangs up after 120 s (LoginGraceTime)
SLOW_LOGIN_SECONDS = 20.0  # a host that hangs up after more of them did not wait for the user

# Of this process: user and name in known_hosts -> what was typed.
_passwords: dict[tuple[str, str], str] = {}


def log_in(transport: paramiko.Transport, target: SshTarget) -> None:
    """Try the keys one after the other; where none is enough, ask the user.

    Raises LoginRefused with what was tried, ConnectionLost where the host has hung up while the
    user was asked.
    """
    may_prompt = target.may_prompt and prompts.can_ask()
    with connect_agent(target) as agent_keys:
        keys, unusable = key_candidates(target, agent_keys, may_prompt=may_prompt)
        _Login(transport, target, keys, unusable, may_prompt).run()


class _Login:
    def __init__(
        self, transport: paramiko.Transport, target: SshTarget, keys: Sequence[KeyCandidate],
        unusable: dict[Path, str], may_prompt: bool,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._target = target
        self._candidates = iter(keys)  # goes on where a host wants a second one
        self._unusable = unusable
        self._may_prompt = may_prompt
        self._login_name = f"{target.user}@{target.address}"
        self._started, self._prompts_before = time.monotonic(), prompts.prompt_count()
        self._tried_keys: list[str] = []  # keys
        self._answer_count = 0  # passwords and other answers
        self._gave_up = False

    def run(self) -> None:
        """A host may want several methods, one after the other."""
        methods = (
            ("publickey", self._try_keys),
            ("keyboard-interactive", self._try_keyboard_interactive),
            ("password", self._try_password),
        )
        wanted_methods, partial = self._initial_methods(), False
        while wanted_methods:
            for method, attempt in methods:
                remaining = attempt() if method in wanted_methods else None
                if remaining is not None:
                    wanted_methods, partial = remaining, True
                    break
            else:
                raise self._refused_error(wanted_methods, partial)

    def _initial_methods(self) -> list[str]:
        """Nothing where the host lets everybody in. Asking is no attempt that counts."""
        user = self._target.user
        try:
            remaining: list[str] = self._call(self._transport.auth_none, user)
            return remaining
        except paramiko.BadAuthenticationType as error:
            return list(error.allowed_types)
        except paramiko.AuthenticationException:
            return ["publickey"]

    def _try_keys(self) -> list[str] | None:
        """What the host still wants; None where it accepts no key."""
        for candidate in self._candidates:
            key = candidate.unlock()
            if key is None and candidate.path is not None:
                self._unusable[candidate.path] = NOT_OPENED
                continue
            self._tried_keys.append(candidate.label)
            remaining = self._attempt(self._transport.auth_publickey, self._target.user, key)
            if remaining is not None:
                return remaining
        return None

    def _try_password(self) -> list[str] | None:
        for _ in range(MAX_TRIES):
            if self._gave_up or not (password := self._password()):
                return None
            user = self._target.user
            remaining = self._attempt(self._transport.auth_password, user, password, None, False)
            if remaining is not None:
                return remaining
            _passwords.pop(self._account, None)
        return None

    def _try_keyboard_interactive(self) -> list[str] | None:
        """Whatever the host asks: a password, a one-time code."""
        if not self._may_prompt:
            return None
        patience, self._transport.auth_timeout = self._transport.auth_timeout, USER_ANSWER_SECONDS
        try:
            for _ in range(MAX_TRIES):
                before = self._answer_count
                user = self._target.user
                remaining = self._attempt(self._transport.auth_interactive, user, self._answers)
                if remaining is not None:
                    return remaining
                _passwords.pop(self._account, None)
                if self._answer_count == before:  # nothing was asked: there is the other method
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
                text = f"{instructions}\n{prompt}" if instructions.strip() else prompt
                answer = self._ask(
                    f"{self._login_name} ({self._target.name}) asks: {text}", echo=echo
                )
            answers.append(answer or "")
        return answers

    @property
    def _account(self) -> tuple[str, str]:
        return self._target.user, self._target.known_host_name

    def _password(self) -> str | None:
        """The one that was typed before, where the host has not refused it."""
        if self._account not in _passwords:
            text = f"password of {self._login_name} ({self._target.name}): "
            if not (typed := self._ask(text)):
                return None
            _passwords[self._account] = typed
        else:
            self._answer_count += 1
        return _passwords[self._account]

    def _ask(self, text: str, *, echo: bool = False) -> str | None:
        answer = prompts.ask(text, echo=echo) if self._may_prompt and not self._gave_up else None
        if answer:
            self._answer_count += 1
        else:
            self._gave_up = True
        return answer

    def _attempt(self, method: Callable[..., Any], *arguments: Any) -> list[str] | None:
        """What the host still wants after it, None where it is not accepted."""
        try:
            remaining: list[str] = self._call(method, *arguments)
        except paramiko.AuthenticationException:
            return None
        return remaining

    def _call(self, method: Callable[..., Any], *arguments: Any) -> Any:
        """Raises paramiko's AuthenticationException where the host says no and waits for more."""
        try:
            return method(*arguments)
        except CONNECTION_ERRORS as error:
            target, transport = self._target, self._transport
            if "timeout" in str(error).lower():
                seconds = format_duration(transport.auth_timeout)
                message = f"no answer to the login of {target.user} within {seconds}"
                raise HostTimeout(target.name, message, fix="try again: it may be busy") from None
            if transport.is_active():
                if isinstance(error, paramiko.AuthenticationException):
                    raise
                raise paramiko.AuthenticationException(str(error)) from None
            refused = (
                isinstance(error, paramiko.AuthenticationException) or len(self._tried_keys) > 1
            )
            slow = time.monotonic() - self._started > SLOW_LOGIN_SECONDS
            waited = slow and prompts.prompt_count() > self._prompts_before
            if (self._tried_keys or self._answer_count) and refused and not waited:
                raise self._hung_up_error() from None
            message = f"the connection to {target.address} was lost during the login"
            raise ConnectionLost(target.name, message, fix="try again") from None

    def _hung_up_error(self) -> LoginRefused:
        counts_keys = self._tried_keys or not self._answer_count
        tried = f"{len(self._tried_keys)} keys" if counts_keys else ""
        typed = f"{self._answer_count} answers" if self._answer_count else ""
        after = " and ".join(count for count in (tried, typed) if count)
        message = f"{self._login_name} hung up after {after}"
        message += f": {', '.join(self._tried_keys)}" if self._tried_keys else ""
        fix = f"name the right one: `key:` of node {self._target.name!r} in the cluster file"
        return LoginRefused(self._target.name, message, fix=fix)

    def _refused_error(self, wanted_methods: Sequence[str], partial: bool) -> LoginRefused:
        """With all that was tried. `partial`: something has been accepted, but is not enough."""
        target, login = self._target, self._login_name
        port = f" -p {target.port}" if target.port != SSH_PORT else ""
        fix = f"ssh-copy-id{port} {login}   or correct `user:` and `key:` of node {target.name!r}"
        if partial:
            first = "a key" if self._tried_keys else "a password"
            message = f"{login} wants {' or '.join(wanted_methods)} besides {first}"
            message += "" if self._may_prompt else ", and there is no terminal to ask for it"
            fix = "let this key log in alone"
        elif "publickey" not in wanted_methods:
            message = f"{login} takes no keys, only {', '.join(wanted_methods)}"
            fix = "allow them: PubkeyAuthentication yes in its sshd_config"
        elif self._tried_keys:
            message = f"{login} accepts none of these keys: {', '.join(self._tried_keys)}"
        else:
            message = f"there is no key here to log in to {login} with"
            fix = fix if self._unusable else f"ssh-keygen -t ed25519 && {fix}"
        message += "\n  what was typed is not accepted" if self._answer_count else ""
        for path, reason in self._unusable.items():
            message += f"\n  not tried: {path} {reason}"
        reasons = (LOCKED, NOT_OPENED)
        if locked := [path for path, reason in self._unusable.items() if reason in reasons]:
            fix = f"ssh-add {locked[0]}   or: {fix}"
        if target.config_note:
            message += f"\n  {target.config_note}"
        return LoginRefused(target.name, message, fix=fix)
