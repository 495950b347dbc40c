"""The logged runs that the guide's lines are compared with."""

from __future__ import annotations

from launcher.planner.public_runs import PublicRun, public_run


def cpu_d4() -> PublicRun:
    """The guide's author, two CPU machines."""
    return public_run("guide-cpu-d4")


def cpu_d8() -> PublicRun:
    """The guide's author, the same two CPU machines."""
    return public_run("guide-cpu-d8")


def rtx4070_d8() -> PublicRun:
    """The guide's author, one RTX 4070."""
    return public_run("rtx4070-d8")


def rtx4070_d12() -> PublicRun:
    """The guide's author, one RTX 4070: the first 87,000 steps."""
    return public_run("rtx4070-d12")


def rtx4070_d12_resumed() -> PublicRun:
    """The run of `rtx4070_d12`, resumed on another text."""
    return public_run("rtx4070-d12-resumed")


def mi300x_d24() -> PublicRun:
    """The guide's author, a rented MI300X."""
    return public_run("mi300x-d24")


def our_d4() -> PublicRun:
    """Ours, 1,000 steps in float32."""
    return public_run("h100-d4-float32")


def speed(run: PublicRun) -> float:
    """Tokens per second of a run that has them."""
    assert run.tokens_per_second is not None
    return run.tokens_per_second
