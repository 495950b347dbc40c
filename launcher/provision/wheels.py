"""The wheels of a lockfile, fetched by the client before they are sent."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from launcher.config.paths import launch_home
from launcher.errors import LaunchError
from launcher.hosts.platform import Platform
from launcher.provision.lockfile import PIP, Wheel
from nanochat.atomic_write import open_atomically, replace_durably
from nanochat.file_hash import sha256_of
from nanochat.progress import Progress, no_progress

# pip takes 0.6 s to start, and keeps nothing of a call that is cut off but its own cache.
WHEELS_PER_CALL = 6


def wheel_path(wheel: Wheel) -> Path:
    """Where it lies on the client once fetched."""
    return launch_home() / "wheels" / wheel.sha256 / wheel.filename


def fetch_wheels(
    wheels: Iterable[Wheel],
    target: Platform,
    *,
    progress: Progress = no_progress,
) -> int:
    """Fetch those that are not here yet, verified. Returns the bytes fetched. Raises LaunchError.

    `progress` counts wheels.

    By pip, since it knows this machine's proxies, certificates and passwords for indexes.
    """
    wanted = list(dict.fromkeys(wheels))
    missing = [wheel for wheel in wanted if not wheel_path(wheel).exists()]
    done = len(wanted) - len(missing)
    fetched = 0
    for wheel in [wheel for wheel in missing if wheel.local_path]:
        _copy(wheel)
        done, fetched = done + 1, fetched + wheel_path(wheel).stat().st_size
        progress(wheel.name, done, len(wanted))
    remote = [wheel for wheel in missing if not wheel.local_path]
    for start in range(0, len(remote), WHEELS_PER_CALL):
        batch = remote[start : start + WHEELS_PER_CALL]
        _download(batch, target)
        done += len(batch)
        fetched += sum(wheel_path(wheel).stat().st_size for wheel in batch)
        progress(batch[-1].name, done, len(wanted))
    return fetched


def unpacked_bytes(wheel: Path) -> int:
    """What it takes on a host's disk once installed, without blocks' rounding."""
    with zipfile.ZipFile(wheel) as file:
        return sum(member.file_size for member in file.infolist())


def _copy(wheel: Wheel) -> None:
    """From a folder of this machine; a link where the disk is the same."""
    path = wheel_path(wheel)
    assert wheel.local_path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _verify(wheel.local_path, wheel)
        try:
            os.link(wheel.local_path, path)
        except OSError:  # on another disk, or another client was faster
            with open_atomically(path) as file, wheel.local_path.open("rb") as source:
                shutil.copyfileobj(source, file)
                file.flush()
                _verify(Path(file.name), wheel)
    except FileNotFoundError:
        raise LaunchError(
            f"{wheel.local_path} is not there any more, and a host needs it",
            fix=f"rm {launch_home() / 'locks'}/*.json, and the wheels are chosen again",
        ) from None


def _download(wheels: Sequence[Wheel], target: Platform) -> None:
    folder = launch_home() / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="new-", dir=folder) as new:
        links = [f"{wheel.name} @ {wheel.url}#sha256={wheel.sha256}" for wheel in wheels]
        done = subprocess.run(
            [*PIP, "download", "--quiet", "--no-deps", "--dest", new, *target.pip_options, *links],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise LaunchError(
                f"cannot download {', '.join(wheel.filename for wheel in wheels)}: "
                f"{done.stderr.strip()[-500:]}",
                fix="try again: what has arrived is kept",
            )
        for wheel in wheels:
            _verify(Path(new, wheel.filename), wheel)
            path = wheel_path(wheel)
            path.parent.mkdir(exist_ok=True)
            replace_durably(Path(new, wheel.filename), path)


def _verify(path: Path, wheel: Wheel) -> None:
    if sha256_of(path) != wheel.sha256:
        raise LaunchError(
            f"{wheel.url} is not the file that was chosen (its SHA-256 is another)",
            fix=f"rm {launch_home() / 'locks'}/*.json, and the wheels are chosen again",
        )
