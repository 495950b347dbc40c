"""`launch resume --set`: what may be otherwise when a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
from records import make_spec

from launcher.config.recipe import load_recipe
from launcher.errors import ConfigError
from launcher.runs.overrides import apply_overrides, needs_new_run
from launcher.runs.spec import RunSpec
from nanochat.divergence import diverged_error


def spec_of(*settings: str) -> RunSpec:
    loaded = load_recipe("d4", [("--set", setting) for setting in settings])
    recipe = loaded.recipe.model_dump(mode="json")
    return make_spec(recipe_file=str(loaded.path), settings=recipe)


def test_how_a_run_is_kept_may_change() -> None:
    spec = spec_of()
    changed = apply_overrides(spec, ["checkpoint.every_steps=7", "checkpoint.every_minutes=null"])
    entry = changed.recipe.model_dump(mode="json")
    assert entry == {
        **spec.settings, "checkpoint": {"every_steps": 7, "every_minutes": None, "keep": 2}
    }  # fmt: skip
    assert apply_overrides(spec, []).recipe.model_dump(mode="json") == spec.settings


def test_a_mirror_that_is_a_folder_is_one_of_here_and_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = spec_of("data.source=climbmix:2", "data.mirror=http://127.0.0.1:1")
    assert apply_overrides(spec, ["data.mirror=hub"]).recipe.data.mirror == str(tmp_path / "hub")
    address = "https://mirror.example/climbmix"
    assert apply_overrides(spec, [f"data.mirror={address}"]).recipe.data.mirror == address


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("seed=7", "--set:1:1: seed cannot change when a run goes on\n"),
        ("evaluation.tokens=512", "evaluation.tokens cannot change"),
        ("data.source=climbmix:3", "data.source cannot change"),
        ("checkpoint={keep: 1}", "checkpoint cannot change"),
        ("checkpoint.keep=0", "--set:1:17: checkpoint.keep: must be at least 1"),
        ("data.mirror=hub", "data.mirror: only climbmix has one"),
        ("keep", "expected key=value"),
    ],
)
def test_what_makes_a_run_what_it_is_may_not(setting: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        apply_overrides(spec_of(), [setting])
    assert says in refused.value.message
    if "cannot change" in says:
        assert "begin a new run for it" in str(refused.value.fix)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_training_that_has_gone_wrong_asks_for_another_run(dtype: str) -> None:
    error = diverged_error("it is nan", newest=5, dtype=dtype, tokens_per_step=4096)
    assert error.fix is not None
    assert needs_new_run(error.fix, steps=9)
