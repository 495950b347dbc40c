"""The folder of one run: its files, each with one name here, and whether someone works in it.

run.json       what was asked for: recipe, versions, hashes of data and tokenizer
metrics.jsonl  one line per step         events.jsonl   what happened, with seconds
log.txt        all that the processes print
tokenizer.json the run's own copy
checkpoints/   summary.json              how it ended, for people and scripts
lock           held by the driver for as long as it lives
stop           its existence asks for a checkpoint and an end
regroup        its existence asks for a checkpoint, to go on on other nodes
measured.json  what a run of `launch measure` has found out
failure.json   why going on is pointless (removed by `launch resume`)
submitted.json on a cluster: since when a driver is to be at work, until there is a summary; how
               often one was started in a row without a new step
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.config.paths import launch_home
from launcher.errors import InputError, NotFound, RunBusy
from launcher.runs.failure import Failure
from launcher.runs.record import MAX_TIMESTAMP, read_json
from launcher.runs.spec import RunSpec, merge_changes, parse_spec
from launcher.runs.submission import Submission
from launcher.runs.summary import Summary
from nanochat.atomic_write import write_atomically
from nanochat.lock import LockHeld, hold_lock, is_held

DISK_FULL_BYTES = 2**20  # a disk with less has no room for a driver to say anything
USED_FILE = "used.json"  # beside the mirrors of a cluster: the file that describes it
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def spec_file(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def stop_request(self) -> Path:
        return self.path / "stop"

    @property
    def regroup_request(self) -> Path:
        return self.path / "regroup"

    @property
    def failure_file(self) -> Path:
        return self.path / "failure.json"

    @property
    def measurement_file(self) -> Path:
        return self.path / "measured.json"

    @property
    def submission_file(self) -> Path:
        return self.path / "submitted.json"

    @property
    def needs_driver(self) -> bool:
        """Whether it was submitted to a cluster and has not ended: if no driver is at work, the
        head's supervisor starts one."""
        return (
            self.submission_file.exists()
            and read_json(self.summary_file) is None
            and self.find_spec() is not None
        )

    def exists(self) -> bool:
        """Whether there is a run.json, readable or not."""
        return self.spec_file.exists()

    def spec(self, *, strict: bool = False) -> RunSpec:
        """Read run.json. `strict`: for what acts on every key.

        Raises InputError if it is missing, damaged or lacks what every run has.
        """
        return self._read_spec(strict=strict)[1]

    def _read_spec(self, *, strict: bool) -> tuple[dict[str, Any], RunSpec]:
        try:
            content = read_json(self.spec_file)
        except OSError as error:
            message = f"{self.spec_file} cannot be read: {error.strerror}"
            raise InputError(message, fix="look at the disk, or at who may read the file") from None
        if content is None and not self.exists():
            raise InputError(f"run '{self.name}' has no run.json here: {self.path}")
        spec = parse_spec(content, str(self.spec_file), self.name, strict=strict)
        assert content is not None
        return content, spec

    def find_spec(self) -> RunSpec | None:
        """Read run.json. None if `spec` raises."""
        try:
            return self.spec()
        except InputError:
            return None

    def created(self) -> float | None:
        """When the run was created, in seconds since 1970. None if run.json does not say.

        The rest of run.json may be wrong: `spec` says what is, so that no run goes unseen.
        """
        try:
            created = (read_json(self.spec_file) or {}).get("created")
        except OSError:
            return None
        if isinstance(created, int | float) and 0 <= created <= MAX_TIMESTAMP:
            return float(created)
        return None

    def summary(self) -> Summary | None:
        return Summary.read(self.summary_file)

    def failure(self) -> Failure | None:
        return Failure.read(self.failure_file)

    def submission(self) -> Submission:
        return Submission.read(self.submission_file) or Submission()

    def update_spec(self, **changes: Any) -> RunSpec:
        """Change fields of run.json, and return what it says now."""
        write_atomically(self.spec_file, self.changed_spec(**changes))
        return self.spec()

    def changed_spec(self, **changes: Any) -> bytes:
        """Return the content of run.json with other values of some fields."""
        return merge_changes(*self._read_spec(strict=False), changes)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, as its driver. Raises RunBusy where another process holds it."""
        try:
            with hold_lock(self.path / "lock"):
                yield
        except LockHeld:
            raise RunBusy(
                f"run '{self.name}' is running", fix=f"launch logs {self.name} -f"
            ) from None

    def is_locked(self) -> bool:
        """Whether a driver holds the folder. Any number of processes may ask at once."""
        return is_held(self.path / "lock")


def runs_home() -> Path:
    """Where the runs of this machine lie."""
    return launch_home() / "runs"


def all_runs() -> list[RunFolder]:
    """Every run, the newest last."""
    return _valid_runs(runs_home().glob("*/run.json"))


def all_mirrors() -> list[RunFolder]:
    """Every run of a cluster that this machine has seen, the newest last."""
    return _valid_runs((launch_home() / "clusters").glob("*/runs/*/run.json"))


def known_run_names() -> set[str]:
    """Of all runs of this machine and of clusters: a new one of these would need its place said."""
    return {run.name for run in (*all_runs(), *all_mirrors())}


def _valid_runs(files: Iterable[Path]) -> list[RunFolder]:
    folders = [RunFolder(path.parent) for path in files if RUN_NAME.fullmatch(path.parent.name)]
    existing = [folder for folder in folders if folder.exists()]
    return sorted(existing, key=lambda folder: (folder.created() or 0.0, folder.name))


def find_run(name: str) -> RunFolder:
    """Raises NotFound with the names there are. `local/RUN` names a run of this machine too."""
    bare = name.removeprefix("local/")
    folder = RunFolder(runs_home() / bare)
    if RUN_NAME.fullmatch(bare) and folder.exists():
        return folder
    mirrors = [f"{run.path.parents[1].name}/{run.name}" for run in all_mirrors()[-8:]]
    names = ", ".join([*(run.name for run in all_runs()[-8:]), *mirrors])
    raise NotFound(
        f"no run '{name}' is known here",
        fix=(f"name one of: {names}" if names else "launch recipe d4 starts one")
        + "; a cluster's run that was never seen here is CLUSTER/RUN",
    )


def create_run(name: str | None, recipe: str, spec: RunSpec) -> RunFolder:
    """Make the folder of a new run. Without a name: RECIPE-1, RECIPE-2, ...

    Raises InputError for a name that is taken.
    """
    runs_home().mkdir(parents=True, exist_ok=True)
    if name is not None:
        folder = RunFolder(runs_home() / name)
        try:
            folder.path.mkdir()
        except FileExistsError:
            fix = "choose another --name"
            if not _is_imported(spec) and not _is_imported(folder.find_spec()):
                fix += f", or go on with it: launch resume {name}"
            raise InputError(f"run '{name}' exists already in {runs_home()}", fix=fix) from None
    else:
        folder = _create_numbered_folder(recipe)
    spec.with_changes(run=folder.name).write(folder.spec_file)
    return folder


def _is_imported(spec: RunSpec | None) -> bool:
    return spec is not None and spec.imported_from is not None


def _create_numbered_folder(recipe: str) -> RunFolder:
    while True:
        taken = known_run_names() | {path.name for path in runs_home().iterdir()}
        folder = RunFolder(runs_home() / next_free_name(recipe, taken))
        try:
            folder.path.mkdir()
        except FileExistsError:  # another command was quicker
            continue
        return folder


def next_free_name(recipe: str, taken: Collection[str]) -> str:
    """RECIPE-1, RECIPE-2, ...: the first that is not taken."""
    stem = _sanitize_name(recipe)
    return next(name for n in itertools.count(1) if (name := f"{stem}-{n}") not in taken)


def require_run_name(name: str) -> None:
    """Raises InputError for what cannot be a folder's name."""
    if not RUN_NAME.fullmatch(name):
        raise InputError(
            f"--name {name}: a run's name has letters, digits, '.', '_' and '-' only, "
            "begins with a letter or digit and has at most 64 characters",
            fix=f"--name {_sanitize_name(name)}",
        )


def _sanitize_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:56] or "run"
