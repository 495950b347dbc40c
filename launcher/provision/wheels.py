"""The wheels of a lock, gathered on the client before they are sent."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from launcher.config.paths import launch_home
from launcher.errors import LaunchError
from launcher.hosts.platform import Platform
from launcher.provision.lock import PIP, Wheel
from nanochat.atomic_write import sha256_of

# pip takes 0.6 s to start, and keeps nothing of a call that is cut off but its own cache.
WHEELS_PER_CALL = 6
Gathered = Callable[[str, int, int], None]  # what came last, wheels here so far, wheels in all


def wheel_path(wheel: Wheel) -> Path:
    """Where it lies on the client once gathered."""
    return launch_home() / "wheels" / wheel.sha256 / wheel.filename


def gather(
    wheels: Iterable[Wheel], target: Platform, *, progress: Gathered = lambda name, done, of: None
) -> int:
    """Fetch those that are not here yet, verified. Returns the bytes fetched. Raises LaunchError.

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
        some = remote[start : start + WHEELS_PER_CALL]
        _download(some, target)
        done, fetched = done + len(some), fetched + sum(wheel_path(w).stat().st_size for w in some)
        progress(some[-1].name, done, len(wanted))
    return fetched


def unpacked_bytes(wheel: Path) -> int:
    """What it takes on a host's disk once installed, without blocks' rounding."""
    with zipfile.ZipFile(wheel) as file:
        return sum(member.file_size for member in file.infolist())


def _copy(wheel: Wheel) -> None:
    """From a folder of this machine; a link where the disk is the same."""
    path, partial = wheel_path(wheel), _partial(wheel)
    assert wheel.local_path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            os.link(wheel.local_path, partial)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(wheel.local_path, partial)
        _verify(partial, wheel)
        partial.replace(path)
    except FileNotFoundError:
        raise LaunchError(
            f"{wheel.local_path} is not there any more, and a host needs it",
            fix=f"rm {launch_home() / 'locks'}/*.json, and the wheels are chosen again",
        ) from None
    finally:
        partial.unlink(missing_ok=True)


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
            wheel_path(wheel).parent.mkdir(exist_ok=True)
            Path(new, wheel.filename).replace(wheel_path(wheel))


def _verify(path: Path, wheel: Wheel) -> None:
    if sha256_of(path) != wheel.sha256:
        raise LaunchError(
            f"{wheel.url} is not the file that was chosen (its SHA-256 is another)",
            fix=f"rm {launch_home() / 'locks'}/*.json, and the wheels are chosen again",
        )


def _partial(wheel: Wheel) -> Path:
    return wheel_path(wheel).with_name(f"{wheel.filename}.{os.getpid()}.partial")
