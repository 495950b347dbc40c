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
            acquire_hosts(
                tmp_path, ["one", "two"], "first", on_wait=told.append, is_cancelled=never
            )
        )
        # Other hosts are free.
        with acquire_hosts(tmp_path, ["three"], "other", on_wait=told.append, is_cancelled=never):
            assert told == []
        asked = threading.Event()

        def wait(name: str) -> None:
            told.append(name)
            asked.set()

        entered = threading.Event()

        def second() -> None:
            with acquire_hosts(
                tmp_path, ["two", "three"], "second", on_wait=wait, is_cancelled=never
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
        acquire_hosts(tmp_path, ["one"], "first", on_wait=told.append, is_cancelled=never),
        acquire_hosts(tmp_path, ["one"], "second", on_wait=told.append, is_cancelled=lambda: True),
    ):
        assert told == []
