"""Secrets that only the user knows, asked for one at a time, whichever thread wants to know.

The main thread asks: Ctrl-C reaches no other one, and would leave the terminal without its echo.
"""

from __future__ import annotations

import getpass
import queue
import sys
import threading
from dataclasses import dataclass, field


@dataclass
class _Question:
    prompt: str
    answered: threading.Event = field(default_factory=threading.Event)
    answer: str = ""


_waiting: queue.Queue[_Question] = queue.Queue()


def can_ask() -> bool:
    """Whether somebody sits at a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def ask(prompt: str) -> str:
    """What the user types, unseen; nothing where they only press Enter or Ctrl-D. In a thread it
    returns once `answer_for` of the main thread has asked. Raises KeyboardInterrupt there."""
    if threading.current_thread() is threading.main_thread():
        return _prompt(prompt)
    question = _Question(prompt)
    _waiting.put(question)
    question.answered.wait()
    return question.answer


def answer_for(thread: threading.Thread) -> None:
    """Wait for the thread's end, asking what any thread wants to know."""
    while thread.is_alive():
        try:
            question = _waiting.get(timeout=0.02)
        except queue.Empty:
            thread.join(0.03)
            continue
        question.answer = _prompt(question.prompt)
        question.answered.set()


def _prompt(prompt: str) -> str:
    try:
        return getpass.getpass(prompt)  # at the terminal itself, whatever stdout is
    except EOFError:
        print(file=sys.stderr)
        return ""
