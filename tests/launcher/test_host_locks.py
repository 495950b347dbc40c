"""Runs that want the same hosts take turns."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path

from launcher.raycluster.host_locks import acquire_hosts


def never() -> bool:
    return False


def test_one_waits_for_the_other_and_is_told_its_name(tmp_path: Path) -> None:
    told: list[str] = []
    with ExitStack() as first:
        first.enter_context(
            acquire_hosts(tmp_path, ["one", "two"], "first", waits_for=told.append, given_up=never)
        )
        # Other hosts are free.
        with acquire_hosts(tmp_path, ["three"], "other", waits_for=told.append, given_up=never):
            assert told == []
        asked = threading.Event()

        def wait(name: str) -> None:
            told.append(name)
            asked.set()

        entered = threading.Event()

        def second() -> None:
            with acquire_hosts(
                tmp_path, ["two", "three"], "second", waits_for=wait, given_up=never
            ):
                entered.set()

        thread = threading.Thread(target=second)
        thread.start()
        assert asked.wait(10) and told == ["first"] and not entered.is_set()
    thread.join(10)
    assert entered.is_set()


def test_one_that_is_given_up_waits_no_longer(tmp_path: Path) -> None:
    told: list[str] = []
    with (
        acquire_hosts(tmp_path, ["one"], "first", waits_for=told.append, given_up=never),
        acquire_hosts(tmp_path, ["one"], "second", waits_for=told.append, given_up=lambda: True),
    ):
        assert told == []
