"""The `launch` command as a user runs it, on real runs of a tiny model in a home of its own."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECIPE = """\
depth: 2
head_dim: 32
sequence_length: 64
vocab_size: 512
tokens_per_step: 2048
steps: 40
data: {source: "files:TEXT"}
evaluation: {every_steps: 20, tokens: 1024}
checkpoint: {every_steps: 5}
"""
RAY_PROCESSES = ("ray::", "raylet", "gcs_server", "default_worker", "launcher.training")


class Home:
    """A LAUNCH_HOME with a text and a recipe named `tiny`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "recipes").mkdir(parents=True)
        text = path / "text.py"
        text.write_text(
            "".join(file.read_text() for file in sorted(Path(json.__file__).parent.glob("*.py")))
            * 2
        )
        (path / "recipes" / "tiny.yaml").write_text(RECIPE.replace("TEXT", str(text)))
        self.environment = {**os.environ, "LAUNCH_HOME": str(path), "COLUMNS": "100"}
        self.environment["PYTHONFAULTHANDLER"] = "1"

    def launch(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "launcher.cli", *arguments],
            env=self.environment, cwd=self.path, timeout=timeout, capture_output=True, text=True,
        )  # fmt: skip

    def start(self, *arguments: str) -> Client:
        """Without waiting for its end."""
        output = self.path / f"output-{time.monotonic_ns()}"
        with output.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "launcher.cli", *arguments],
                env=self.environment, cwd=self.path, stdout=file, stderr=file,
                preexec_fn=hear_ctrl_c,
            )  # fmt: skip
        return Client(process, output)

    def run(self, name: str) -> Run:
        return Run(self.path / "runs" / name)


class Client:
    """A `launch` command at work; its output and errors go to one file."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._output = output

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def output(self) -> str:
        """So far."""
        return self._output.read_text()

    def end(self, seconds: float = 30) -> tuple[int, str]:
        """Wait for its exit code and output. A client that does not end shows where its threads
        are."""
        try:
            return self._process.wait(seconds), self._output.read_text()
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGABRT)  # faulthandler prints the stacks
            self._process.wait(10)
            raise AssertionError(f"no end in {seconds:g} s: {self._output.read_text()}") from None


class Run:
    """What a run has written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self, name: str) -> list[dict[str, Any]]:
        file = self.path / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return self.lines("metrics.jsonl")

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.lines("events.jsonl")

    def losses(self) -> list[float]:
        """Of each step once: the last attempt's."""
        return list({record["step"]: record["loss"] for record in self.metrics}.values())

    def differing_steps(self, other: Run) -> list[tuple[int, int]]:
        """Return (step, attempt) of each step whose loss is not that of `other`, bit for bit."""
        losses = {record["step"]: record["loss"] for record in other.metrics}
        last = {record["step"]: record for record in self.metrics}
        return [
            (step, record["attempt"])
            for step, record in last.items()
            if record["loss"] != losses.get(step)
        ]

    def hashes(self, step: int) -> dict[str, str]:
        folder = self.path / "checkpoints" / f"step-{step:08d}"
        return {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.glob("*.safetensors")
        }

    def wait_for_step(self, step: int) -> None:
        wait_until(lambda: any(record["step"] >= step for record in self.metrics), 90)

    def processes(self, *, of: str = "") -> list[int]:
        """Ids of all below the run's driver reaper, or of those whose name contains `of`."""
        names = all_processes()
        roots = [pid for pid, name in names.items() if str(self.path) in name]
        found = {pid for root in roots for pid in (root, *_descendants(root))}
        return sorted(pid for pid in found if of in names.get(pid, ""))


def hear_ctrl_c() -> None:
    """A shell that puts the tests in the background has them ignore it, and so their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def ray_processes(home: Path) -> dict[int, str]:
    """Every process of Ray below runs of this LAUNCH_HOME, orphans too."""
    return {
        pid: name
        for pid, name in all_processes().items()
        if any(part in name for part in RAY_PROCESSES) and _has_home(pid, home)
    }


def _has_home(pid: int, home: Path) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is not ours
        return False
    return f"LAUNCH_HOME={home}".encode() in variables


def all_processes() -> dict[int, str]:
    processes = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            if name:  # zombies have none
                processes[int(folder.name)] = name
        except OSError:
            continue
    return processes


def _descendants(pid: int) -> list[int]:
    below = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            below += [child, *_descendants(child)]
    return below
