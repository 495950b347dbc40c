"""Whose crontab it is: what a user wrote there stays as it is, in real shells with a crontab that
keeps its lines in a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from launcher.raycluster import boot_hook

CRONTAB = """\
#!/bin/sh
[ ! -e "$HOME/broken" ] || { echo "crontabs/ada: Permission denied" >&2; exit 1; }
tab="$HOME/tab"
case $1 in
  -l) [ -e "$tab" ] || { echo "no crontab for ada" >&2; exit 1; }; cat "$tab" ;;
  -r) rm "$tab" ;;
  -) cat > "$tab" ;;
esac
"""
OURS = "@reboot [ ! -e .launch/clusters/home/start.sh ] || sh .launch/clusters/home/start.sh"


class User:
    def __init__(self, home: Path, shell: str) -> None:
        self.home, self.shell, self.tab = home, shell, home / "tab"
        (home / "bin").mkdir()
        (home / "bin" / "crontab").write_text(CRONTAB)
        (home / "bin" / "crontab").chmod(0o700)
        (home / ".launch" / "clusters" / "home").mkdir(parents=True)

    def up(self) -> str:
        """What starts it at boot. A cron is there."""
        install = boot_hook.install_and_start("home")
        assert "cat /proc/[0-9]*/comm" in install
        return self._run(install.replace("cat /proc/[0-9]*/comm", "echo cron"))

    def down(self) -> None:
        self._run(boot_hook.remove("home"))

    def _run(self, script: str) -> str:
        path = f"{self.home / 'bin'}:{os.environ['PATH']}"
        done = subprocess.run(
            [self.shell, "-c", script], cwd=self.home, capture_output=True, text=True,
            env={"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8"},
        )  # fmt: skip
        return done.stdout.strip()


@pytest.fixture(params=["dash", "bash"])
def user(request: pytest.FixtureRequest, tmp_path: Path) -> User:
    if shutil.which(request.param) is None:
        pytest.skip(f"there is no {request.param}")
    return User(tmp_path, request.param)


@pytest.mark.parametrize("lines", [None, "a b\n", "# mine, 5%\n\n5 4 * * * true\n\n\n"])
def test_a_line_comes_and_goes_and_all_others_stay(user: User, lines: str | None) -> None:
    if lines is not None:
        user.tab.write_text(lines)
    for _ in range(2):  # a second time changes nothing
        assert user.up() == "crontab"
        assert user.tab.read_text() == f"{lines or ''}{OURS}\n"
    user.down()
    assert (user.tab.read_text() if user.tab.exists() else None) == lines


def test_lines_of_another_character_set_stay(user: User) -> None:
    """grep takes them for binary where the locale is UTF-8."""
    lines = b"0 5 * * * echo M\xfcller\n1 1 * * * true\n"
    user.tab.write_bytes(lines)
    user.up()
    user.down()
    assert user.tab.read_bytes() == lines


def test_a_last_line_without_an_end_is_not_joined_with_ours(user: User) -> None:
    user.tab.write_text("0 5 * * * backup")
    user.up()
    assert user.tab.read_text() == f"0 5 * * * backup\n{OURS}\n"
    user.down()
    assert user.tab.read_text() == "0 5 * * * backup\n"


def test_a_crontab_that_cannot_be_read_is_not_written(user: User) -> None:
    user.tab.write_text("mine\n")
    (user.home / "broken").touch()
    assert user.up() == "none"
    user.down()
    assert user.tab.read_text() == "mine\n"


def test_lines_of_another_cluster_stay(user: User) -> None:
    user.tab.write_text(OURS.replace("clusters/home", "clusters/home2") + "\n")
    user.up()
    user.down()
    assert user.tab.read_text().count("home2") == 2
