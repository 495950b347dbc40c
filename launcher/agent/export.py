"""Export a run's model on a cluster's head, for a client without torch.

`python -P -m launcher.agent.export FOLDER TARGET LAYOUT` prints what `launcher.runs.export.export`
returns, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from launcher.errors import LaunchError
from launcher.runs.export import export
from launcher.runs.folder import RunFolder


def main(folder: str, target: str, layout: str) -> None:
    """Write the model's files into `target`."""
    try:
        print(json.dumps(export(RunFolder(Path(folder)), Path(target), layout)))
    except LaunchError as error:
        raise SystemExit(error.message) from None


if __name__ == "__main__":
    main(*sys.argv[1:])
