"""Resident memory while text is prepared, the most of each stage.

    python tests/bench/memory.py --text '~/text/*' [--length 512]

Gigabytes of mixed kinds are what it is for. Nothing is kept.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from nanochat.dataset.prepare import prepare
from nanochat.dataset.sources import parse_source

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", required=True)
    parser.add_argument("--length", type=int, default=512)
    arguments = parser.parse_args()
    source = parse_source(f"files:{arguments.text}", Path.cwd())
    size = source.stored_bytes(source.files)
    most: dict[str, int] = {}

    def on_progress(stage: str, done: float, total: float | None) -> None:
        most[stage] = max(most.get(stage, 0), resident_bytes())

    began = time.monotonic()
    with tempfile.TemporaryDirectory() as cache:
        prepare(
            source, cache=Path(cache), sequence_length=arguments.length, vocab_size=32_768,
            validation=None, threads=len(os.sched_getaffinity(0)), on_progress=on_progress,
        )  # fmt: skip
    print(f"{size / 1e9:.2f} GB in {len(source.files)} files, {time.monotonic() - began:.0f} s")
    for stage, peak in most.items():
        print(f"{stage:<16}{peak / 1e9:6.2f} GB")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


if __name__ == "__main__":
    main()
