"""`launch resume`: what it refuses, and when a failed run's report advises it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from records import make_folder, make_summary
from running import Home, wait_until

from launcher.cli.attach import print_end
from launcher.cli.main import cli
from launcher.config.recipe import load_recipe
from launcher.errors import InputError, RunFailed
from launcher.runs.failure import Failure
from launcher.runs.folder import RunFolder, runs_home
from launcher.runs.record import read_json, write_json
from launcher.runs.run import LocalRun


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Of a run that died."""
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path))
    settings = load_recipe("d4", []).recipe.model_dump(mode="json")
    return make_folder(runs_home() / "mine", run="mine", settings=settings, folder=str(tmp_path))


def resume(*options: str) -> None:
    result = CliRunner().invoke(cli, ["resume", "mine", *options], standalone_mode=False)
    if result.exception is not None:
        raise result.exception


def end(folder: RunFolder, status: str, *, steps: int = 0, **failure: Any) -> None:
    make_summary(run="mine", status=status, steps=steps).write(folder.summary_file)
    if failure:
        Failure(**failure).write(folder.failure_file)


def content_of(folder: RunFolder) -> dict[str, Any]:
    """What run.json says, to be changed by hand."""
    content = read_json(folder.spec_file)
    assert content is not None
    return content


@pytest.mark.parametrize("options", [(), ("--set", "data.mirror=hub")])
@pytest.mark.parametrize("key", ["folder", "settings"])
def test_a_record_that_lacks_what_going_on_needs_is_named(
    folder: RunFolder, options: tuple[str, ...], key: str
) -> None:
    spec = content_of(folder)
    del spec[key]
    write_json(folder.spec_file, spec)
    with pytest.raises(InputError) as refused:
        resume(*options)
    assert refused.value.message == f"{folder.spec_file} lacks {key}"
    assert "another version of launch has made it" in str(refused.value.fix)


def test_a_record_that_was_edited_by_hand_is_read_as_a_recipe_is(folder: RunFolder) -> None:
    spec = content_of(folder)
    spec["settings"]["depth"] = "four"
    write_json(folder.spec_file, spec)
    with pytest.raises(InputError, match=r"run.json:\d+:\d+: depth: "):
        resume()


def test_a_finished_run_takes_no_settings(folder: RunFolder) -> None:
    end(folder, "finished", steps=9)
    with pytest.raises(InputError, match="'mine' has made all its steps: nothing is left for"):
        resume("--set", "checkpoint.keep=1")
    resume()  # its summary


@pytest.mark.parametrize(
    ("fix", "steps", "resumes"),
    [
        (None, 5, True),
        ("free some space there", 0, True),
        ("take it from elsewhere: --set data.mirror=ADDRESS, or a folder", 0, True),
        ("--set workers=2 or fewer", 0, False),
        ("--set dtype=auto", 5, False),
        ("give more text (--data), or take shorter rows: --set sequence_length=N", 0, False),
        ("choose files with text in them: --data", 0, False),
        ("check the path: --data 'files:~/text/**/*.txt'", 0, False),
        ("check the path: --data 'files:~/text/**/*.txt'", 5, True),  # it was there before
    ],
)
def test_resume_is_advised_where_it_can_help(
    folder: RunFolder, fix: str | None, steps: int, resumes: bool
) -> None:
    end(folder, "failed", steps=steps, message="it broke", fix=fix)
    with pytest.raises(RunFailed, match="run 'mine' failed: it broke") as failed:
        print_end(LocalRun(folder), as_json=False)
    advice = str(failed.value.fix).splitlines()
    assert advice[0] == (fix or f"see {folder.log}")
    again = "launch resume mine   goes on then"
    anew = "launch recipe d4 ...   begins a new run with that"
    assert advice[1:] == [again if resumes else anew]


def test_a_head_that_does_not_answer_is_waited_for_where_that_is_asked(tmp_path: Path) -> None:
    """Ctrl-C ends the waiting. Without --wait the error names it."""
    home = Home(tmp_path / "home")
    (home.path / "clusters").mkdir()
    file = home.path / "clusters" / "off.yaml"
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        file.write_text(f"nodes:\n  - {{host: 127.0.0.1, port: {closed.getsockname()[1]}}}\n")
        refused = home.launch("resume", "off/night")
        assert refused.returncode == 1
        assert "launch resume off/night --wait   goes on as soon as it answers" in refused.stderr
        waiting = home.start("resume", "off/night", "--wait")
        wait_until(lambda: "waiting for it (Ctrl-C ends that)" in waiting.output(), 30)
        waiting.interrupt()
        code, output = waiting.end()
    assert code == 130 and "run 'off/night' is as it was: not resumed from here" in output
    assert "Traceback" not in output


def test_this_machine_is_not_waited_for(folder: RunFolder) -> None:
    with pytest.raises(InputError, match="--wait: this machine is no cluster"):
        resume("--wait")


def test_more_steps_are_a_number(folder: RunFolder) -> None:
    for wrong in ("0", "-1", "some"):
        done = CliRunner().invoke(cli, ["resume", "mine", "--extend", wrong])
        assert done.exit_code == 2 and "--extend" in done.output
