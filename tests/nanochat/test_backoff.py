"""How long pauses between attempts get."""

from __future__ import annotations

from nanochat.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(first_seconds=0.5, max_seconds=4.0)
    assert [backoff.seconds(failures) for failures in range(7)] == [0, 0.5, 1, 2, 4, 4, 4]
    assert backoff.seconds(10**6) == 4.0


def test_no_pause_stays_none() -> None:
    assert Backoff(0.0, 0.0).seconds(3) == 0.0
