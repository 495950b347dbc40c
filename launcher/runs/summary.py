"""How a run ended: summary.json, which is also what `launch recipe --json` prints."""

from __future__ import annotations

from launcher.runs.record import Record


class Summary(Record):
    """Written last: whoever follows the run reads no further once it is there."""

    run: str
    recipe: str
    cluster: str
    steps: int
    tokens: int
    seconds: float
    """Spent in steps that count."""
    tokens_per_second: float | None
    """Over the whole run."""
    train_loss: float | None
    val_bpb: float | None
    checkpoint: str | None
    """Path of the newest one."""
    restarts: int
    status: str
    """`finished`, `stopped`, `failed` or `imported`."""
