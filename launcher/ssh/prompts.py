"""Prompt the user from the main thread while worker threads connect to hosts.

It asks one question after the other: the main thread alone hears Ctrl-C, which ends the question
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


class _PromptQueue:
    """What the main thread waits for: a question; None when a worker has ended; a string to
    print."""

    def __init__(self) -> None:
        self.items: queue.SimpleQueue[_Question | str | None] = queue.SimpleQueue()


_lock = threading.Lock()
_queue: _PromptQueue | None = None
_screens: list[Screen] = []
_prompt_count = 0


def run_in_threads(calls: Sequence[Callable[[], None]]) -> None:
    """Each in a thread of its own, until all have ended; none may raise. Called in the main
    thread, it asks what they want to know. Ctrl-C ends the wait at once."""
    global _queue
    prompt_queue = _PromptQueue()

    def work(call: Callable[[], None]) -> None:
        try:
            call()
        finally:
            prompt_queue.items.put(None)

    # Not an executor: it would hold Ctrl-C back until the slowest host is done.
    threads = [threading.Thread(target=work, args=(call,), daemon=True) for call in calls]
    serves = threading.current_thread() is threading.main_thread() and _queue is None
    if serves:
        _queue = prompt_queue
    try:
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            item = prompt_queue.items.get()
            if item is None:
                left -= 1
            elif isinstance(item, str):
                print(item, file=sys.stderr)
            else:
                _ask_user(item)
    finally:
        if serves:
            with _lock:
                _queue = None
            _cancel_questions(prompt_queue)


def can_ask() -> bool:
    """Whether there is a terminal, and somebody at it."""
    return _queue is not None and _has_terminal()


def ask(text: str, *, echo: bool = False) -> str | None:
    """Wait for the user's answer to this prompt. None where nobody can be asked any more."""
    question = _Question(_printable(text), echo)
    with _lock:
        if _queue is None:
            return None
        _queue.items.put(question)
    question.answered.wait()
    return question.answer


def print_notice(text: str) -> None:
    """Print a line on stderr, but not while a question is open."""
    with _lock:
        if _queue is not None:
            _queue.items.put(text)
            return
    print(text, file=sys.stderr)


def prompt_count() -> int:
    """How many questions this process has asked."""
    return _prompt_count


def add_screen(screen: Screen) -> None:
    """To be stopped for every question from now on."""
    _screens.append(screen)


def remove_screen(screen: Screen) -> None:
    if screen in _screens:
        _screens.remove(screen)


def _ask_user(question: _Question) -> None:
    """Raises KeyboardInterrupt; the question is answered with None then."""
    global _prompt_count
    screens = list(_screens)
    try:
        for screen in screens:
            screen.stop()
        with contextlib.suppress(EOFError, OSError):  # Ctrl-D; a terminal that has gone
            read = _read_visibly if question.echo else getpass.getpass
            question.answer = read(question.text)
        _prompt_count += 1
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


def _cancel_questions(prompt_queue: _PromptQueue) -> None:
    while True:
        try:
            question = prompt_queue.items.get_nowait()
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
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
