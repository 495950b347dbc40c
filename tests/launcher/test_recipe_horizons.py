"""How long a recipe trains, and with which batch where it leaves that out."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.config.recipe import Recipe, load_recipe
from launcher.errors import ConfigError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()


def write(text: str) -> None:
    Path("recipes/r.yaml").write_text(text)


@pytest.mark.parametrize(
    ("horizon", "steps"),
    [
        ("steps: 7", 7),
        ("tokens: 1e6", 488),  # 488.3
        ("flops: 1e15", 5174),  # of 94,372,272 a token: 5,174.0
        ("tokens_per_scaling_parameter: 2", 11264),
        ("", 67584),  # 12 for each of 11,534,384
    ],
)
def test_horizons(horizon: str, steps: int) -> None:
    write(f"depth: 4\ntokens_per_step: 2048\n{horizon}")
    assert load_recipe("r").recipe.steps_total == steps
    again = load_recipe("r", [("--set", "tokens=20480")]).recipe
    assert again.steps_total == 10


@pytest.mark.parametrize(
    ("depth", "exponent", "steps"),
    [(4, 18, 528), (8, 18, 1920), (12, 19, 2520), (20, 20, 4980), (24, 20, 8352)],
)
def test_a_depth_alone_is_upstreams_run_of_that_size(depth: int, exponent: int, steps: int) -> None:
    """Batch and steps as its training script works them out."""
    write(f"depth: {depth}")
    recipe = load_recipe("r").recipe
    assert (recipe.tokens_per_step, recipe.steps_total) == (2**exponent, steps)
    assert "tokens_per_step" not in recipe.model_fields_set
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe  # as run.json keeps it


def test_a_batch_by_rule_is_of_whole_rows() -> None:
    write("depth: 4\nsequence_length: 1000")
    assert load_recipe("r").recipe.tokens_per_step == 262_000


def test_climbmix_is_as_many_shards_as_the_horizon_needs() -> None:
    write("depth: 4\ntokens: 40e6\nsequence_length: 2048\ndata: {source: climbmix}")
    assert load_recipe("r").recipe.text_source == "climbmix:2"
    assert load_recipe("r", [("--data", "climbmix:5")]).recipe.text_source == "climbmix:5"


def test_a_number_of_shards_that_is_none_is_shown_where_it_stands() -> None:
    write("depth: 4\ndata:\n  source: climbmix:6543\n  mirror: /nowhere")
    with pytest.raises(ConfigError, match=r"3:11: data\.source: climbmix:6543: not a number of"):
        load_recipe("r")
