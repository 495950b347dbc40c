"""The checkpoint of a run's folder that its model is read from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.errors import RunFailed
from launcher.runs.folder import RunFolder

if TYPE_CHECKING:
    from nanochat.checkpoint import Checkpoint


def newest_checkpoint(folder: RunFolder) -> Checkpoint:
    """Return the newest verified checkpoint. Raises RunFailed if the run has none yet."""
    from nanochat.checkpoint import CheckpointFolder  # torch: 2 s

    checkpoint = CheckpointFolder(folder.checkpoints).newest(weights_only=True)
    if checkpoint is None:
        raise RunFailed(
            f"run '{folder.name}' has no whole checkpoint yet",
            fix="a run saves one every checkpoint.every_minutes, when it is stopped and at its end",
        )
    return checkpoint
