"""How a run ended: summary.json, which is also what `launch recipe --json` prints."""

from __future__ import annotations

from launcher.runs.record import Count, Record, Seconds


class Summary(Record):
    """Written last: whoever follows the run reads no further once it is there."""

    run: str = ""
    recipe: str = ""
    cluster: str = ""
    steps: Count = 0
    tokens: Count = 0
    seconds: Seconds = 0.0
    """Spent in steps that count."""
    tokens_per_second: float | None = None
    """Over the whole run."""
    train_loss: float | None = None
    val_bpb: float | None = None
    checkpoint: str | None = None
    """Path of the newest one."""
    restarts: Count = 0
    status: str
    """`finished`, `stopped`, `failed` or `imported`."""
