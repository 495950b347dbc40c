"""What a program can do through `import launcher`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from records import make_folder
from running import Home

import launcher
from launcher.errors import ConfigError, LaunchError, NotFound
from launcher.runs.folder import RunFolder
from launcher.runs.run import LocalRun

PROGRAM = """\
import launcher

address = launcher.start_run("tiny", steps=4, name="mine")
with launcher.open_run(address) as run:
    for update in launcher.Follower(run).until_end():
        for metric in update.metrics:
            print(metric.step)
address = launcher.resume_run(address, extend=2)
with launcher.open_run_to_read(address) as run:
    print(launcher.await_run(run).steps)
print([(state.run, state.status) for state in launcher.list_runs()])
"""


def test_a_program_trains_a_model(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM], env=home.environment, cwd=home.path,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["1", "2", "3", "4", "6", "[('mine', 'finished')]"]
    assert RunFolder(home.path / "runs" / "mine").spec().predicted is not None


def test_a_run_whose_cluster_cannot_be_asked_is_not_said_to_have_died(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "home" / "runs" / "d4-1", cluster="home")
    with pytest.raises(LaunchError, match="whether run 'home/d4-1' goes on is not known"):
        launcher.await_run(LocalRun(folder, "home"))


def test_one_setting_is_a_list_of_one() -> None:
    with pytest.raises(TypeError, match=r"settings: a list such as \['steps=3'\]"):
        launcher.start_run("d4", settings="steps=3")


def test_importing_it_imports_nothing_else() -> None:
    program = "import sys, launcher; print(*sorted(m for m in sys.modules if 'launcher' in m))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["launcher", "launcher.version"], done.stderr


def test_all_public_names_are_there() -> None:
    for name in launcher._PUBLIC:
        assert getattr(launcher, name).__name__ == name
    assert set(launcher._PUBLIC) < set(dir(launcher))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        launcher.nothing  # noqa: B018


def test_wrong_arguments_are_the_errors_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match="no recipe named 'd44'"):
        launcher.start_run("d44")
    with pytest.raises(ConfigError, match="unknown key 'stepz'"):
        launcher.start_run("d4", settings=["stepz=3"])
    with pytest.raises(NotFound, match="no run 'other' is known here"), launcher.open_run("other"):
        pass
    assert launcher.list_runs() == [] and not (tmp_path / "runs").exists()
