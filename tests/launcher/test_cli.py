"""The command line from outside: what it lists, prints and exits with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from launcher import formatting
from launcher.cli import edit, main
from launcher.cli.render import table
from launcher.config.paths import shipped_folder
from launcher.config.schema import SCHEMA_FILE
from launcher.errors import ConfigError, Interrupted, LaunchError, RunFailed

ROOT = Path(main.__file__).parents[2]
COMMANDS = [
    "recipe", "runs", "logs", "stop", "resume", "sample", "plot", "export", "import", "cluster",
    "plan", "size", "measure", "edit",
]  # fmt: skip
ENTRY = "from launcher.cli.main import main; main()"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("VISUAL", "EDITOR", "LAUNCH_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def launch(*arguments: str, code: str = ENTRY) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code, *arguments]
    return subprocess.run(words, capture_output=True, text=True, encoding="utf-8", timeout=60)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_help_lists_the_commands(arguments: list[str]) -> None:
    done = launch(*arguments)
    listed = done.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    assert (done.returncode, done.stderr) == (0, "")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom launcher.cli.main import main\ntry:\n    main()\nexcept SystemExit:\n"
        "    print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    imported = set(launch("--help", code=code).stderr.split())
    assert {"click", "launcher"} <= imported
    assert not imported & {"pydantic", "yaml", "rich", "torch", "ray", "numpy", "paramiko"}


@pytest.mark.parametrize(
    "commands, heavy",
    [("runs.compare plot logs stop size", ""), ("recipe plan resume measure", "paramiko")],
    ids=["of this machine", "of clusters"],
)
def test_commands_import_only_what_they_need(commands: str, heavy: str) -> None:
    """torch takes 1.5 s, paramiko and requests 0.2 s."""
    code = "\n".join(f"import launcher.cli.{name}" for name in commands.split())
    code += "\nimport sys\nprint(*{'torch', 'ray', 'requests', 'paramiko'} & sys.modules.keys())"
    assert launch(code=code).stdout.strip() == heavy


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str) -> None:
    done = launch(name, "--help")
    assert done.stdout.startswith(f"Usage: launch {name} ")
    assert (done.returncode, done.stderr) == (0, "")


def test_version() -> None:
    assert launch("--version").stdout == "launch 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["sise"], 2, "error: unknown command 'sise': did you mean 'size'?\nfix: launch --help\n"),
        (["zzz"], 2, "error: unknown command 'zzz'\nfix: launch --help\n"),
        (["edit", "recipe"], 2, "error: missing argument 'NAME'\nfix: launch edit recipe --help\n"),
        (["size", "d101", "--json"], 2, "error: no size d101: depths go from 1 to 100\n"
         "fix: launch size d12\n"),
    ],
)  # fmt: skip
def test_wrong_input(arguments: list[str], code: int, said: str) -> None:
    done = launch(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (LaunchError("no disk"), 1, "error: no disk\n"),
        (RunFailed("it broke", fix="see log.txt"), 1, "error: it broke\nfix: see log.txt\n"),
        (ConfigError("a.yaml:1:1: no"), 2, "error: a.yaml:1:1: no\n"),
        (Interrupted("saved at step 5", fix="launch resume r"), 130,
         "saved at step 5\nfix: launch resume r\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (KeyError("x"), 1, "internal error: KeyError: 'x'\n"
         "fix: set LAUNCH_DEBUG=1 to see where it comes from, and report it\n"),
    ],
)  # fmt: skip
def test_errors_end_in_their_exit_code(
    raised: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @click.command()
    def command() -> None:
        raise raised

    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *_: command)
    monkeypatch.setattr(sys, "argv", ["launch", "size"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == code
    assert capsys.readouterr() == ("", said)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_DEBUG", "1")
    code = (
        "from launcher.cli import main\nmain.LazyGroup.get_command = lambda *_: 1 / 0\nmain.main()"
    )
    done = launch("size", code=code)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_closed_pipe_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-c", ENTRY, "size", "--json"]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_size_json_is_one_document() -> None:
    done = launch("size", "--json")
    assert [row["name"] for row in json.loads(done.stdout)] == ["d4", "d8", "d12", "d20", "d24"]
    assert (done.returncode, done.stderr) == (0, "")


TABLE = """\
size   dim  heads  context  params  guide says    FLOP/tok  guide says      state
d4     256      4    512 L   36.7M  37M ✓            75.5M  72M ✓          575 MB
d8     512      4   1024 L    126M  80M ✗ x0.64       302M  250M ✗ x0.83  1.91 GB
d12    768      6   2048 L    286M  286M ✓            887M  1.7B ✗ x1.92  4.24 GB
d20   1280     10   2048 L    897M  1B ✗ x1.12       3.24B  6B ✗ x1.85    12.8 GB
d24   1536     12   2048 L   1.38B  1.7B ✗ x1.23     5.28B  10B ✗ x1.89   19.4 GB
d6     384      3   2048 L   73.5M  -                 196M  -             1.13 GB
"""


def test_size_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    done = launch("size", "d4", "d8", "d12", "d20", "d24", "d6")
    assert done.stdout == TABLE
    assert max(map(len, done.stdout.splitlines())) <= 100


PAGE = """\
size  dim  heads  context  params  guide says  FLOP/tok  guide says    state
d6    384      3   2048 L   73.5M  -               196M  -           1.13 GB

parameters      how many  what
wte           12,582,912  token embedding: rows looked up, nothing multiplied
value_embeds  37,748,736  one more such table for every second layer, added to its values
lm_head       12,582,912  the head: multiplied for every token
matrices      10,616,940  attention and MLP of the blocks, gates of the value embeddings
scalars               38  weights of layers and of the token before (smear)
scaling       23,199,852  matrices + lm_head: what horizons are counted by
total         73,531,538  all but the line above, which counts two groups again

FLOPs per token     how many  what
products of blocks     63.7M  6 x matrices and the smear gate
attention              56.6M  12 x dim x window of every layer
head                   75.5M  6 x lm_head
all                     196M  the sum: forward and backward
6N                      441M  x2.25 of that: 6 x all parameters, lookup tables too

state of a worker        weights  gradients  optimizer    total     peak
float32, as on CPUs       294 MB     294 MB     546 MB  1.13 GB  4.28 GB
bf16 tables, as on GPUs   193 MB     193 MB     345 MB   731 MB  4.59 GB

horizon        tokens  per parameter  per scaling  what
optimal          278M           3.79           12  about the compute optimum, by upstream
public, least    239M           3.25         10.3  karpathy/nanochat dev/LOG.md, 2026-01-27
public, most     260M           3.53         11.2  the same, by budgets of FLOPs
recipe           278M           3.79           12  1,062 x 262,144: x1 of optimal

bits per byte: no public run of 6 layers says any

tok/s  basis   precision  peak memory  on                     source
160K   logged  bfloat16        1.1 GB  RTX 4070, 12 GB, WSL2  [1]

[1] Bl4ckd09/nanochat-on-rtx4070
    rounded by its author
"""


def test_size_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
    assert launch("size", "d6").stdout == PAGE


def test_size_page_says_what_does_not_compare() -> None:
    lines = launch("size", "d8").stdout.splitlines()
    assert "0.991            164M  ClimbMix     RTX 4070, 12 GB     [3]" in lines
    assert "1.078               -  FineWeb-EDU  8 H100, 80 GB each  [5]" in lines
    assert "not comparable to ClimbMix: FineWeb-EDU" in lines
    assert max(map(len, lines)) <= 100


def test_size_table_where_the_terminal_has_no_cross(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    assert "80M ? x0.64" in launch("size", "d8").stdout


@pytest.mark.parametrize(
    ("write", "number", "words"),
    [
        (formatting.format_count, 512, "512"),
        (formatting.format_count, 36_700_290, "36.7M"),
        (formatting.format_count, 999_600, "1M"),
        (formatting.format_count, 1_384_122_122, "1.38B"),
        (formatting.format_flops, 75_498_192, "75.5 MFLOPs"),
        (formatting.format_flops, 1.5e20, "150 EFLOPs"),
        (formatting.format_bytes, 1_910_000_000, "1.91 GB"),
        (formatting.format_bytes, 512, "512 B"),
        (formatting.format_bytes, 3_000, "3 kB"),
        (formatting.format_duration, 0.04, "0.0 s"),
        (formatting.format_duration, 9.94, "9.9 s"),
        (formatting.format_duration, 59.4, "59 s"),
        (formatting.format_duration, 59.6, "1 min"),
        (formatting.format_duration, 450, "7 min 30 s"),
        (formatting.format_duration, 3_599.6, "1 h"),
        (formatting.format_duration, 12_300, "3 h 25 min"),
        (formatting.format_duration, 86_399, "1 d"),
        (formatting.format_duration, 450_000, "5 d 5 h"),
        (formatting.format_duration, 2_620_000_000, "83.0 years"),
    ],
)
def test_figures_for_people(write, number: float, words: str) -> None:
    assert write(number) == words


def test_table_without_rows(capsys: pytest.CaptureFixture[str]) -> None:
    table.print_table([], [], as_json=False, empty="no runs yet")
    table.print_table([], [], as_json=True, empty="no runs yet")
    assert capsys.readouterr().out == "no runs yet\n[]\n"


@pytest.fixture
def editor(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces its first argument in the file by its second."""
    script = here / "editor.py"
    script.write_text(
        "import pathlib, sys\nold, new, path = sys.argv[1:]\nfile = pathlib.Path(path)\n"
        "file.write_text(file.read_text().replace(old, new))"
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} {script} 'depth: 4' 'depth: 6'")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("d4", "home/recipes"),
        ("d4", "recipes"),  # where there is one
        (str(shipped_folder("recipe") / "d4.yaml"), "recipes"),
    ],
)
def test_edit_copies_a_shipped_recipe(here: Path, editor: None, name: str, folder: str) -> None:
    shipped = (shipped_folder("recipe") / "d4.yaml").read_text()
    if folder == "recipes":
        (here / folder).mkdir()
    done = launch("edit", "recipe", name)
    copy = f"{folder}/d4.yaml"
    assert done.stdout == f"editing {copy}\n{copy} is a valid recipe\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert (here / copy).read_text() == shipped.replace("depth: 4", "depth: 6")
    schema = (here / copy).with_name(SCHEMA_FILE)  # what its first line names, seen from there
    assert json.loads(schema.read_text())["required"] == ["depth"]
    assert (shipped_folder("recipe") / "d4.yaml").read_text() == shipped


def test_edit_keeps_and_shows_what_is_wrong(
    here: Path, editor: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "recipes").mkdir()
    monkeypatch.setenv("VISUAL", os.environ["EDITOR"].replace("'depth: 6'", "'dept: 6'"))
    done = launch("edit", "recipe", "d4")
    assert done.returncode == 2
    assert done.stdout == "editing recipes/d4.yaml\n"
    assert "recipes/d4.yaml:3:1: unknown key 'dept': did you mean 'depth'?\n" in done.stderr
    assert "  dept: 6\n  ^^^^\n" in done.stderr
    assert done.stderr.endswith("fix: launch edit recipe recipes/d4.yaml\n")
    assert "\ndept: 6\n" in (here / "recipes" / "d4.yaml").read_text()


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (f"{sys.executable} -c raise(SystemExit(3))", 1, "error: the editor ended with status 3: "),
        ("no-such-editor --wait", 2, "error: cannot start the editor 'no-such-editor': "),
    ],
)
def test_edit_without_a_working_editor(
    command: str, code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITOR", command)
    done = launch("edit", "recipe", "d4")
    assert done.returncode == code
    assert done.stderr.startswith(said)


def test_edit_in_a_checkout_edits_the_file_itself(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """./recipes is the folder of the shipped files."""
    recipes = here / "recipes"
    recipes.mkdir()
    monkeypatch.setattr(edit, "shipped_folder", lambda kind: recipes)
    assert edit._user_file("recipe", Path("recipes/d4.yaml")) == Path("recipes/d4.yaml")
