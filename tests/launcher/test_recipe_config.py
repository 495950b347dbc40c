"""Recipes: what is found, what is read, and what exactly is said of a wrong line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from launcher.config import paths
from launcher.config.recipe import Recipe, load_recipe
from launcher.config.schema import json_schema
from launcher.errors import ConfigError, NotFound
from nanochat.sizes import ModelConfig

GOOD = "depth: 4\nsequence_length: 512\ntokens_per_step: 2_048\nsteps: 100\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    return tmp_path


def write(text: str | bytes, name: str = "r.yaml") -> None:
    content = text.encode() if isinstance(text, str) else text
    Path("recipes", name).write_bytes(content)


def message(text: str | bytes, overrides: list[tuple[str, str]] | None = None) -> str:
    write(text)
    with pytest.raises(ConfigError) as raised:
        load_recipe("r", overrides or [])
    return raised.value.message


# Text added to a good recipe (line 5 on) -> place, words, line and caret.
WRONG_LINES = [
    (
        "step: 10",
        "5:1: unknown key 'step': did you mean 'steps'?\n  step: 10\n  ^^^^",
    ),
    (
        "data:\n  sauce: embedded",
        "6:3: unknown key 'sauce' in data: did you mean 'source'?\n    sauce: embedded\n    ^^^^^",
    ),
    (
        "checkpoint: {zzz: 1}",
        "5:14: unknown key 'zzz' in checkpoint: known are every_steps, every_minutes, keep\n"
        "  checkpoint: {zzz: 1}\n               ^^^",
    ),
    (
        "warmup_steps: ten",
        "5:15: warmup_steps: expected a whole number, got the text 'ten'\n"
        "  warmup_steps: ten\n                ^^^",
    ),
    (
        "workers: '2'  # two",
        "5:10: workers: expected a whole number, got the text '2': write 2\n"
        "  workers: '2'  # two\n           ^^^",
    ),
    (
        "evaluation:\n  tokens: 65,536",
        "6:11: evaluation.tokens: expected a whole number, got the text '65,536': write 65536\n"
        "    tokens: 65,536\n            ^^^^^^",
    ),
    (
        "workers: 1.5",
        "5:10: workers: expected a whole number, got 1.5\n  workers: 1.5\n           ^^^",
    ),
    (
        "seed: true",
        "5:7: seed: expected a whole number, got true\n  seed: true\n        ^^^^",
    ),
    (
        "seed: on",
        "5:7: seed: expected a whole number, got on, in YAML true\n  seed: on\n        ^^",
    ),
    (
        "seed:",
        "5:6: seed: expected a whole number, got nothing\n  seed:\n       ^",
    ),
    (
        "seed: [1]",
        "5:7: seed: expected a whole number, got a list\n  seed: [1]\n        ^^^",
    ),
    (
        "seed: 010",
        "5:7: YAML reads 010 as 8: write 8, or what you mean\n  seed: 010\n        ^^^",
    ),
    (
        "seed: 1:30",
        "5:7: YAML reads 1:30 as 90: write 90, or what you mean\n  seed: 1:30\n        ^^^^",
    ),
    (
        "seed: -1",
        "5:7: seed: must be at least 0, got -1\n  seed: -1\n        ^^",
    ),
    (
        "micro_batch: 0",
        "5:14: micro_batch: must be at least 1, got 0\n  micro_batch: 0\n               ^",
    ),
    (
        "checkpoint:\n  keep: 0",
        "6:9: checkpoint.keep: must be at least 1, got 0\n    keep: 0\n          ^",
    ),
    (
        "checkpoint:\n  every_minutes: 0",
        "6:18: checkpoint.every_minutes: must be more than 0, got 0\n"
        "    every_minutes: 0\n                   ^",
    ),
    (
        "data: embedded",
        "5:7: data: expected keys and values, got the text 'embedded'\n"
        "  data: embedded\n        ^^^^^^^^",
    ),
    (
        "data: {source: 5}",
        "5:16: data.source: expected text, got 5: write it in quotes, '5'\n"
        "  data: {source: 5}\n                 ^",
    ),
    (
        "head_dim: 65",
        "5:11: head_dim: must be a multiple of 2, got 65\n  head_dim: 65\n            ^^",
    ),
    (
        "vocab_size: 264",
        "5:13: vocab_size: must be at least 265, got 264\n  vocab_size: 264\n              ^^^",
    ),
    (
        "window_pattern: SXL",
        "5:17: window_pattern: expected S (a quarter of the sequence) and L (all of it) as in SSSL,"
        " got 'SXL'\n  window_pattern: SXL\n                  ^^^",
    ),
    (
        "dtype: float16",
        "5:8: dtype: expected auto, float32 or bfloat16, got the text 'float16'\n"
        "  dtype: float16\n         ^^^^^^^",
    ),
    (
        "workers: 5",
        "5:10: 4 rows per step (2,048 tokens) cannot be dealt out to 5 workers: use 4 or fewer\n"
        "  workers: 5\n           ^",
    ),
    (
        "warmup_steps: 101",
        "5:15: 101 warm-up steps are more than all 100 steps\n"
        "  warmup_steps: 101\n                ^^^",
    ),
    (
        "data:\n  source: files:a.txt\n  validation: files:a.txt",
        "7:15: data.validation is what is trained on: name other text\n"
        "    validation: files:a.txt\n                ^^^^^^^^^^^",
    ),
    (
        "tokens_per_scaling_parameter: 12",
        "5:31: write one horizon: steps and tokens_per_scaling_parameter are given\n"
        "  tokens_per_scaling_parameter: 12\n                                ^^",
    ),
    (
        "depth: 5",
        "5:1: key 'depth' is already in line 1: keep one\n  depth: 5\n  ^^^^^",
    ),
    (
        "data:\n\tsource: x",
        "6:1: a tab: indent with spaces\n   source: x\n  ^",
    ),
    (
        "data:\n  source: x\n validation: y",
        "7:2: the indentation does not fit the lines above\n   validation: y\n   ^",
    ),
    (
        "  seed: 1",
        "5:7: not YAML: mapping values are not allowed here\n    seed: 1\n        ^",
    ),
    (
        "seed\nworkers: 1",
        "5:1: no ':' after this\n  seed\n  ^",
    ),
    (
        "seed: &here 1\nworkers: *here",
        "6:10: aliases (*name) are not supported\n  workers: *here\n           ^",
    ),
    (
        "seed: !!python/name:os.system 1",
        "5:7: tags (!name) are not supported\n  seed: !!python/name:os.system 1\n        ^",
    ),
    (
        "---\nseed: 1",
        "5:1: a second document: keep one per file\n  ---\n  ^",
    ),
    (
        "seed: \x1b[31m",
        "5:7: control character 0x1b: remove it\n  seed:  [31m\n        ^",
    ),
]


@pytest.mark.parametrize(("line", "expected"), WRONG_LINES)
def test_wrong_line(line: str, expected: str) -> None:
    assert message(GOOD + line) == f"recipes/r.yaml:{expected}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "1:1: the file is empty\n  \n  ^"),
        (b"# to do\n", "1:1: the file is empty\n  # to do\n  ^"),
        (b"- d4\n", "1:1: expected keys and values, as in key: value\n  - d4\n  ^^^^"),
        (b"a: 1\nb: caf\xe9", "2:7: not UTF-8 (byte 0xe9): save the file as UTF-8\n"
         "  b: caf\N{REPLACEMENT CHARACTER}\n        ^"),
        (b"steps: 9", "1:1: depth is missing\n  steps: 9\n  ^"),
        (b"depth: 101\nsteps: 9\ntokens_per_step: 2048",
         "1:8: depth: must be at most 100, got 101\n  depth: 101\n         ^^^"),
        (b"depth: 4\ntokens_per_step: 3_000\nsteps: 9",
         "2:18: 3,000 tokens per step are not whole rows of 2,048: use 2,048 or 4,096\n"
         "  tokens_per_step: 3_000\n                   ^^^^^"),
        (b"depth: 4\ntokens_per_step: 2048\ntokens_per_scaling_parameter: 1e-5",
         "3:31: tokens_per_scaling_parameter: 1e-05 is less than one step of 2,048 tokens\n"
         "  tokens_per_scaling_parameter: 1e-5\n                                ^^^^"),
        (b"depth: 4\ntokens_per_step: 2048\nflops: 1e9",
         "3:8: flops: 1e+09 is less than one step of 2,048 tokens\n  flops: 1e9\n         ^^^"),
    ],
)  # fmt: skip
def test_wrong_file(text: bytes, expected: str) -> None:
    assert message(text) == f"recipes/r.yaml:{expected}"


@pytest.mark.parametrize(
    ("option", "argument", "expected"),
    [
        ("--set", "steps=ten", "1:7: steps: expected a whole number, got the text 'ten'\n"
         "  steps=ten\n        ^^^"),
        ("--set", " steps = 0",
         "1:10: steps: must be at least 1, got 0\n   steps = 0\n           ^"),
        ("--set", "step=5", "1:1: unknown key 'step': did you mean 'steps'?\n  step=5\n  ^^^^"),
        ("--set", "data.sauce=x", "1:1: unknown key 'sauce' in data: did you mean 'source'?\n"
         "  data.sauce=x\n  ^^^^^^^^^^"),
        ("--set", "steps", "1:1: expected key=value, for example steps=1000\n  steps\n  ^^^^^"),
        ("--set", "data.=x", "1:1: expected key=value, for example steps=1000\n"
         "  data.=x\n  ^^^^^^^"),
        ("--set", "seed=", "1:6: seed: expected a whole number, got nothing\n  seed=\n       ^"),
        ("--set", "seed=[1", "1:8: not YAML: expected ',' or ']', but got '<stream end>'\n"
         "  seed=[1\n         ^"),
        ("--set", "steps.x=1", "1:1: steps: expected a whole number, got keys and values\n"
         "  steps.x=1\n  ^^^^^^^"),
        # The file's tokens_per_step is right by itself: what was typed is pointed at.
        ("--set", "sequence_length=600",
         "1:17: 2,048 tokens per step are not whole rows of 600: use 1,800 or 2,400\n"
         "  sequence_length=600\n                  ^^^"),
        ("--steps", "1k", "1:1: steps: expected a whole number, got the text '1k'\n  1k\n  ^^"),
        ("--data", "", "1:1: data.source: must not be empty\n  \n  ^"),
    ],
)  # fmt: skip
def test_wrong_option(option: str, argument: str, expected: str) -> None:
    assert message(GOOD, [(option, argument)]) == f"{option}:{expected}"


def test_all_problems_are_shown_from_top_to_bottom() -> None:
    said = message("steps: x\nseed: -1\ndepth: 0\nzzz: 1\ndepth: 2", [("--set", "workers=0")])
    places = [line.split(": ")[0] for line in said.splitlines() if not line.startswith("  ")]
    rows = ["1:8", "2:7", "3:8", "4:1", "5:1"]
    assert places == [*(f"recipes/r.yaml:{row}" for row in rows), "--set:1:9"]


def test_at_most_ten_problems_are_shown() -> None:
    said = message(GOOD + "".join(f"key{n}: 1\n" for n in range(12)))
    assert said.count("unknown key") == 10
    assert said.endswith("\nand 2 more")


def test_fix_names_the_file_unless_an_option_is_wrong() -> None:
    for overrides, fix in (
        ([], "launch edit recipe recipes/r.yaml"),
        ([("--set", "steps=0")], None),
    ):
        write(GOOD if overrides else "")
        with pytest.raises(ConfigError) as raised:
            load_recipe("r", overrides)
        assert raised.value.fix == fix


def test_a_later_error_points_at_its_key() -> None:
    write(GOOD + "data: {source: nowhere}")
    error = load_recipe("r").error("data.source", "no such text")
    assert error.message.startswith("recipes/r.yaml:5:16: data.source: no such text\n")


def test_defaults() -> None:
    write(GOOD)
    recipe = load_recipe("r").recipe
    assert recipe.model == ModelConfig(depth=4, head_dim=128, sequence_length=512)
    assert (recipe.window_pattern, recipe.vocab_size, recipe.seed) == ("L", 32_768, 42)
    assert (recipe.dtype, recipe.workers, recipe.elastic) == ("auto", 1, False)
    assert (recipe.micro_batch, recipe.data.source) == (None, "embedded")
    assert (recipe.evaluation.every_steps, recipe.evaluation.tokens) == (250, 65_536)
    assert recipe.checkpoint.model_dump() == {"every_steps": None, "every_minutes": 10, "keep": 2}
    assert recipe.rows_per_step == 4


@pytest.mark.parametrize(
    ("lines", "steps_total", "warmup"),
    [
        ("steps: 5", 5, 0),
        ("steps: 399", 399, 39),
        ("steps: 1_000", 1000, 40),
        ("steps: 1e3", 1000, 40),
        ("steps: 50\nwarmup_steps: 50", 50, 50),
        # 12 x 11,534,384 scaling parameters (head_dim 128) in steps of 2,048 tokens
        ("tokens_per_scaling_parameter: 12", 67_584, 40),
        ("steps: null\ntokens_per_scaling_parameter: 0.01", 56, 5),
    ],
)
def test_horizon(lines: str, steps_total: int, warmup: int) -> None:
    write(f"depth: 4\ntokens_per_step: 2048\n{lines}")
    recipe = load_recipe("r").recipe
    assert (recipe.steps_total, recipe.warmup) == (steps_total, warmup)


@pytest.mark.parametrize(
    ("horizon", "option", "argument", "steps", "ratio"),
    [
        ("steps: 9", "--steps", "7", 7, None),
        ("steps: 9", "--set", "steps=1e1", 10, None),
        ("steps: 9", "--set", "tokens_per_scaling_parameter=2", None, 2.0),
        ("steps: 9", "--set", "tokens_per_scaling_parameter=null", 9, None),
        ("tokens_per_scaling_parameter: 12", "--steps", "7", 7, None),
    ],
)
def test_an_option_replaces_the_horizon(
    horizon: str, option: str, argument: str, steps: int | None, ratio: float | None
) -> None:
    write(f"depth: 4\ntokens_per_step: 2048\n{horizon}")
    recipe = load_recipe("r", [(option, argument)]).recipe
    assert (recipe.steps, recipe.tokens_per_scaling_parameter) == (steps, ratio)


@pytest.mark.parametrize(
    ("options", "warmup"),
    [
        ([("--steps", "30")], 20),
        ([("--steps", "20")], 20),
        ([("--steps", "19")], 1),
        ([("--set", "steps=1e1")], 1),
    ],
)
def test_fewer_steps_than_the_file_warms_up_for_warm_up_by_the_rule(
    options: list[tuple[str, str]], warmup: int
) -> None:
    write("depth: 4\ntokens_per_step: 2048\nsteps: 100\nwarmup_steps: 20")
    assert load_recipe("r", options).recipe.warmup == warmup


def test_a_warm_up_that_an_option_asks_for_does_not_give_way() -> None:
    said = message(GOOD, [("--set", "warmup_steps=20"), ("--steps", "19")])
    assert "20 warm-up steps are more than all 19 steps" in said


def test_options_of_both_horizons_contradict() -> None:
    said = message(GOOD, [("--steps", "7"), ("--set", "tokens_per_scaling_parameter=2")])
    assert said.startswith("--set:1:30: write one horizon: steps and tokens_per_scaling_param")


def test_overrides_reach_every_depth() -> None:
    write(GOOD)
    overrides = [
        ("--set", "window_pattern=sssl"),
        ("--set", "checkpoint={keep: 5}"),
        ("--set", "evaluation.tokens=1024"),
        ("--data", "files:C:\\texts: new\\*.txt"),
    ]
    recipe = load_recipe("r", overrides).recipe
    assert recipe.window_pattern == "SSSL"
    assert (recipe.checkpoint.keep, recipe.evaluation.tokens) == (5, 1024)
    assert recipe.data.source == "files:C:\\texts: new\\*.txt"


def test_files_of_other_systems_are_read() -> None:
    write(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load_recipe("r").recipe.depth == 4
    said = message(b"\xef\xbb\xbfdept: 4\r\n" + GOOD.encode())
    assert said == (
        "recipes/r.yaml:1:1: unknown key 'dept': did you mean 'depth'?\n  dept: 4\n  ^^^^"
    )


def test_a_recipe_survives_json() -> None:
    write(GOOD + "guide: {parameters: 37_000_000}")
    recipe = load_recipe("r").recipe
    assert Recipe.model_validate(json.loads(recipe.model_dump_json())) == recipe


SHIPPED = [  # name, tokens per step, steps_total, source
    ("d4", 2_048, 1_000, "embedded"),
    ("d8", 32_768, 5_000, "climbmix"),
    ("d12", 65_536, 200_000, "climbmix"),
    ("d20", 524_288, 9_960, "climbmix"),
    ("d24", 524_288, 16_704, "climbmix"),
]


@pytest.mark.parametrize(("name", "tokens_per_step", "steps", "source"), SHIPPED)
def test_shipped_recipe(name: str, tokens_per_step: int, steps: int, source: str) -> None:
    loaded = load_recipe(name)
    assert loaded.path.parent == paths.shipped_folder("recipe")
    assert loaded.recipe.tokens_per_step == tokens_per_step
    assert loaded.recipe.steps_total == steps
    assert loaded.recipe.data.source == source
    assert loaded.recipe.guide.dim == loaded.recipe.model.dim
    assert loaded.recipe.guide.heads == loaded.recipe.model.heads


def test_nearer_recipes_hide_farther_ones(here: Path) -> None:
    shipped = paths.shipped_folder("recipe") / "d4.yaml"
    home = here / "home" / "recipes" / "d4.yml"
    assert paths.find_config_file("recipe", "d4") == shipped
    home.parent.mkdir(parents=True)
    home.write_text(GOOD)
    assert paths.find_config_file("recipe", "d4") == home
    write(GOOD, "d4.yaml")
    assert paths.find_config_file("recipe", "d4") == Path("recipes/d4.yaml")
    assert paths.find_config_file("recipe", str(shipped)) == shipped
    assert [file.origin for file in paths.list_config_files("recipe") if file.name == "d4"] == [
        "here"
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("d44", "no recipe named 'd44': did you mean d4 or d24?"),
        ("zzz", "no recipe named 'zzz'"),
        ("d4.yaml", "no recipe file d4.yaml"),
        ("recipes/d4", "no recipe file recipes/d4"),
    ],
)
def test_recipe_not_found(name: str, said: str) -> None:
    with pytest.raises(NotFound) as raised:
        paths.find_config_file("recipe", name)
    assert raised.value.message == said
    assert "d12 (shipped), d20 (shipped)" in (raised.value.fix or "")


@pytest.mark.parametrize(
    ("platform", "variable", "folder"),
    [
        ("linux", "XDG_DATA_HOME", "data/launch"),
        ("linux", "", ".local/share/launch"),
        ("darwin", "", "Library/Application Support/launch"),
        ("win32", "LOCALAPPDATA", "data/launch"),
        ("win32", "", "AppData/Local/launch"),
    ],
)
def test_launch_home(
    here: Path, monkeypatch: pytest.MonkeyPatch, platform: str, variable: str, folder: str
) -> None:
    assert paths.launch_home() == here / "home"
    for name in ("LAUNCH_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setattr(sys, "platform", platform)
    if variable:
        monkeypatch.setenv(variable, str(here / "data"))
    assert paths.launch_home() == here / folder


def test_schema_has_every_key_with_its_meaning() -> None:
    found = json_schema("recipe")
    assert list(found["properties"]) == list(Recipe.model_fields)
    assert found["required"] == ["depth"]
    assert (found["properties"]["depth"]["minimum"], found["properties"]["depth"]["maximum"]) == (
        1,
        100,
    )
    blocks = {"data", "evaluation", "checkpoint", "guide"}
    described = {key for key, value in found["properties"].items() if "description" in value}
    assert described == set(Recipe.model_fields) - blocks
