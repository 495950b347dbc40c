"""Questions to the user, and words for him, while hosts are reached from many threads.

The main thread asks, one question after the other: it alone hears Ctrl-C, which ends the question
with the terminal's echo on again. Answers are kept nowhere here.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import queue
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TextIO


class Screen(Protocol):
    """What draws on the terminal again and again, and must not while a question is open."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


@dataclass(eq=False)
class _Question:
    text: str
    echo: bool
    answer: str | None = None
    answered: threading.Event = field(default_factory=threading.Event)


class _Desk:
    """Where the main thread waits for questions; None stands for a worker that has ended, a
    string for words to the user."""

    def __init__(self) -> None:
        self.line: queue.SimpleQueue[_Question | str | None] = queue.SimpleQueue()


_lock = threading.Lock()
_desk: _Desk | None = None
_screens: list[Screen] = []
_asked = 0


def run_all(calls: Sequence[Callable[[], None]]) -> None:
    """Each in a thread of its own, until all have ended; none may raise. Called in the main
    thread, it asks what they want to know. Ctrl-C ends the wait at once."""
    global _desk
    desk = _Desk()

    def work(call: Callable[[], None]) -> None:
        try:
            call()
        finally:
            desk.line.put(None)

    # Not an executor: it would hold Ctrl-C back until the slowest host is done.
    threads = [threading.Thread(target=work, args=(call,), daemon=True) for call in calls]
    serves = threading.current_thread() is threading.main_thread() and _desk is None
    if serves:
        _desk = desk
    try:
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            said = desk.line.get()
            if said is None:
                left -= 1
            elif isinstance(said, str):
                print(said, file=sys.stderr)
            else:
                _put(said)
    finally:
        if serves:
            with _lock:
                _desk = None
            _dismiss(desk)


def can_ask() -> bool:
    """Whether there is a terminal, and somebody at it."""
    return _desk is not None and _has_terminal()


def ask(text: str, *, echo: bool = False) -> str | None:
    """Wait for the user's answer to this prompt. None where nobody can be asked any more."""
    question = _Question(_printable(text), echo)
    with _lock:
        if _desk is None:
            return None
        _desk.line.put(question)
    question.answered.wait()
    return question.answer


def say(text: str) -> None:
    """A line on stderr, but not while a question is open."""
    with _lock:
        if _desk is not None:
            _desk.line.put(text)
            return
    print(text, file=sys.stderr)


def asked() -> int:
    """How many questions this process has asked."""
    return _asked


def add_screen(screen: Screen) -> None:
    """To be stopped for every question from now on."""
    _screens.append(screen)


def remove_screen(screen: Screen) -> None:
    if screen in _screens:
        _screens.remove(screen)


def _put(question: _Question) -> None:
    """Raises KeyboardInterrupt; the question is answered with None then."""
    global _asked
    screens = list(_screens)
    try:
        for screen in screens:
            screen.stop()
        with contextlib.suppress(EOFError, OSError):  # Ctrl-D; a terminal that has gone
            read = _read_visibly if question.echo else getpass.getpass
            question.answer = read(question.text)
        _asked += 1
        for screen in screens:
            screen.start()
    finally:
        question.answered.set()


def _read_visibly(text: str) -> str:
    """Not input(): its prompt goes to stdout."""
    source: TextIO = sys.stdin
    output: TextIO = sys.stderr
    with contextlib.ExitStack() as files:
        with contextlib.suppress(OSError):
            source = files.enter_context(open("/dev/tty"))
            output = files.enter_context(open("/dev/tty", "w"))
        print(text, end="", file=output, flush=True)
        line = source.readline()
    if not line:
        raise EOFError
    return line.rstrip("\n")


def _dismiss(desk: _Desk) -> None:
    while True:
        try:
            question = desk.line.get_nowait()
        except queue.Empty:
            return
        if isinstance(question, _Question):
            question.answered.set()


def _has_terminal() -> bool:
    """One that this process may read: in the background it would only be stopped."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except (OSError, AttributeError):  # no controlling terminal; Windows has no O_NOCTTY
        return sys.stdin is not None and sys.stdin.isatty()
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def _printable(text: str) -> str:
    """A host's own words may hold escape sequences."""
    return "".join(each if each.isprintable() or each == "\n" else "?" for each in text)
