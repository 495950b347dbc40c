"""Sizes by arithmetic, against totals that public training logs print."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.errors import InputError
from launcher.planner.size_table import all_sizes, find_size
from nanochat.sizes import (
    ModelConfig,
    flops_per_token,
    parameter_counts,
    parameter_shapes,
    state_bytes,
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


SHIPPED = [  # name, dim, heads, total, scaling parameters, FLOPs per token, float32 GB of state
    ("d4", 256, 4, 36_700_290, 11_534_432, 75_498_192, 0.57),
    ("d8", 512, 4, 125_829_354, 41_943_232, 301_991_184, 1.91),
    ("d12", 768, 6, 286_261_730, 110_100_912, 887_098_032, 4.24),
    ("d20", 1280, 10, 896_533_746, 435_160_240, 3_240_107_184, 12.77),
    ("d24", 1536, 12, 1_384_122_122, 729_810_624, 5_284_833_552, 19.43),
]


@pytest.mark.parametrize(("name", "dim", "heads", "total", "scaling", "flops", "state"), SHIPPED)
def test_shipped_size(
    name: str, dim: int, heads: int, total: int, scaling: int, flops: int, state: float
) -> None:
    row = find_size(name).as_json()
    assert (row["dim"], row["heads"]) == (dim, heads)
    assert row["parameters"]["total"] == total
    assert row["parameters"]["scaling"] == scaling
    assert row["flops_per_token"] == flops
    assert round(row["state_bytes"] / 1e9, 2) == state
    assert isinstance(row["state_bytes"], int)


SSSL = [  # depth, head_dim, sequence_length, FLOPs per token: logged for d4, d8 and d24
    (4, 64, 512, 71_959_248),
    (8, 128, 1024, 273_679_632),
    (12, 128, 2048, 759_696_048),
    (20, 128, 2048, 2_886_212_784),
    (24, 128, 2048, 4_775_225_616),
]


@pytest.mark.parametrize(("depth", "head_dim", "sequence_length", "flops"), SSSL)
def test_short_windows_save_flops(
    depth: int, head_dim: int, sequence_length: int, flops: int
) -> None:
    config = ModelConfig(
        depth=depth, head_dim=head_dim, sequence_length=sequence_length, window_pattern="SSSL"
    )
    assert flops_per_token(config) == flops


def test_windows() -> None:
    """The pattern is tiled, the last layer sees all, S is a quarter rounded up to 128 tokens."""
    config = ModelConfig(depth=6, sequence_length=1100, window_pattern="SL")
    assert config.windows == [384, 1100, 384, 1100, 384, 1100]
    assert ModelConfig(depth=2, sequence_length=256, window_pattern="S").windows == [128, 256]


@pytest.mark.parametrize(
    ("depth", "head_dim", "dim", "heads"),
    [(1, 128, 128, 1), (3, 128, 256, 2), (5, 64, 320, 5), (7, 48, 480, 10), (100, 128, 6400, 50)],
)
def test_width_is_64_per_layer_in_whole_heads(
    depth: int, head_dim: int, dim: int, heads: int
) -> None:
    config = ModelConfig(depth=depth, head_dim=head_dim)
    assert (config.dim, config.heads) == (dim, heads)


@pytest.mark.parametrize("depth", [1, 2, 3, 9, 26, 100])
def test_any_depth_follows_the_closed_form(depth: int) -> None:
    """reference: V x D per table, 12 x D^2 per layer, a gate of 12 per head with a table."""
    config = ModelConfig(depth=depth)
    counts = parameter_counts(config)
    tables = (depth + 1) // 2
    assert counts.wte == counts.lm_head == 32_768 * config.dim
    assert counts.value_embeds == tables * 32_768 * config.dim
    assert counts.matrices == 12 * depth * config.dim**2 + tables * 12 * config.heads
    assert counts.scalars == 2 * depth + 26
    assert find_size(f"d{depth}").as_json()["parameters"]["total"] == counts.total


@pytest.mark.parametrize(("depth", "layers"), [(1, [0]), (3, [0, 2]), (4, [1, 3])])
def test_every_second_layer_has_a_value_embedding(depth: int, layers: list[int]) -> None:
    config = ModelConfig(depth=depth)
    assert [layer for layer in range(depth) if config.has_value_embedding(layer)] == layers


def test_tables_are_padded_to_64_rows() -> None:
    shapes = parameter_shapes(ModelConfig(depth=1, vocab_size=300))
    assert shapes["transformer.wte.weight"] == shapes["lm_head.weight"] == (320, 128)


def test_state_is_weights_gradients_and_moments() -> None:
    """16 bytes per AdamW parameter; Muon's second moment is one row or column per matrix."""
    config = ModelConfig(depth=4, head_dim=64)
    counts = parameter_counts(config)
    attention, gates, mlp = 4 * 4 * 256, 2 * 12, 2 * 4 * 1024
    muon = 12 * counts.matrices + 4 * (attention + gates + mlp)
    tables = counts.wte + counts.value_embeds
    others = counts.lm_head + counts.scalars
    assert state_bytes(config) == muon + 16 * (tables + others)
    assert state_bytes(config, bf16_tables=True) == muon + 8 * tables + 16 * others


def test_json_has_the_keys_of_the_contract() -> None:
    row = find_size("d4").as_json()
    assert list(row) == [
        "name", "depth", "dim", "heads", "parameters", "flops_per_token", "sequence_length",
        "window_pattern", "state_bytes", "guide", "flops_parts", "state", "horizons", "public_runs",
    ]  # fmt: skip
    assert list(row["parameters"]) == [
        "total", "wte", "value_embeds", "lm_head", "matrices", "scalars", "scaling",
    ]  # fmt: skip
    parts = row["parameters"]
    assert parts["scaling"] == parts["matrices"] + parts["lm_head"]
    assert row["guide"]["parameters"] == 37_000_000
    assert row["guide"]["flops_per_token"] == 72_000_000


FLOPS = [  # name, products of blocks, attention, head, 6N / all
    ("d4", 18_875_088, 6_291_456, 50_331_648, 2.92),
    ("d8", 150_996_240, 50_331_648, 100_663_296, 2.50),
    ("d12", 509_610_672, 226_492_416, 150_994_944, 1.94),
    ("d20", 2_359_303_344, 629_145_600, 251_658_240, 1.66),
    ("d24", 4_076_874_000, 905_969_664, 301_989_888, 1.57),
]


@pytest.mark.parametrize(("name", "products", "attention", "head", "factor"), FLOPS)
def test_flops_by_part(name: str, products: int, attention: int, head: int, factor: float) -> None:
    row = find_size(name).as_json()
    parts = row["flops_parts"]
    assert (parts["block_products"], parts["attention"], parts["head"]) == (
        products,
        attention,
        head,
    )
    assert products + attention + head == row["flops_per_token"]
    assert round(parts["six_n"] / row["flops_per_token"], 2) == factor


def test_the_guides_flops_of_deep_models_are_6n() -> None:
    """Of the parameters that the guide gives them, to the two digits that it has."""
    for name in ("d12", "d20", "d24"):
        guide = find_size(name).guide
        assert guide.parameters is not None
        assert float(f"{6 * guide.parameters:.1e}") == guide.flops_per_token


STATE = [  # name, precision, GB of weights, gradients, optimizer, total
    ("d4", "float32", 0.15, 0.15, 0.28, 0.57),
    ("d8", "float32", 0.50, 0.50, 0.91, 1.91),
    ("d8", "bfloat16_tables", 0.34, 0.34, 0.57, 1.24),
    ("d12", "bfloat16_tables", 0.79, 0.79, 1.25, 2.83),
    ("d20", "bfloat16_tables", 2.66, 2.66, 3.76, 9.08),
    ("d24", "float32", 5.54, 5.54, 8.36, 19.43),
    ("d24", "bfloat16_tables", 4.23, 4.23, 5.74, 14.20),
]


@pytest.mark.parametrize(("name", "precision", "weights", "gradients", "optimizer", "total"), STATE)
def test_state_by_part(
    name: str, precision: str, weights: float, gradients: float, optimizer: float, total: float
) -> None:
    found = find_size(name).as_json()["state"][precision]
    peak = found.pop("peak")  # tests/launcher/test_memory.py
    assert [round(found[part] / 1e9, 2) for part in found] == [
        weights, gradients, optimizer, total,
    ]  # fmt: skip
    assert peak > found["total"]


HORIZONS = [  # name, tokens, per parameter, per scaling parameter, of the optimum, guide's ratio
    ("d4", 2_048_000, 0.06, 0.18, 0.01, None),
    ("d8", 163_840_000, 1.30, 3.91, 0.33, 2.05),
    ("d12", 13_107_200_000, 45.79, 119.05, 9.92, 45.8),
    ("d20", 5_221_908_480, 5.82, 12.00, 1.00, None),
    ("d24", 8_757_706_752, 6.33, 12.00, 1.00, None),
]


@pytest.mark.parametrize(("name", "tokens", "per", "scaling", "of", "said"), HORIZONS)
def test_horizons(
    name: str, tokens: int, per: float, scaling: float, of: float, said: float | None
) -> None:
    found = find_size(name).as_json()["horizons"]
    recipe = found["recipe"]
    assert recipe["tokens"] == tokens
    ratios = ("per_parameter", "per_scaling_parameter", "of_optimal")
    assert [round(recipe[ratio], 2) for ratio in ratios] == [per, scaling, of]
    assert (found["guide"] and found["guide"]["says_per_parameter"]) == said
    assert found["optimal"]["per_scaling_parameter"] == 12
    assert found["public_range"]["low"]["per_scaling_parameter"] == pytest.approx(10.3)
    assert found["public_range"]["high"]["per_scaling_parameter"] == pytest.approx(11.2)


@pytest.mark.parametrize("depth", [6, 10, 26, 100])
def test_any_depth_has_the_horizon_of_the_rules(depth: int) -> None:
    """12 tokens per scaling parameter, to whole steps."""
    found = find_size(f"d{depth}").as_json()["horizons"]["recipe"]
    assert 0.998 < found["of_optimal"] <= 1


def test_the_guide_knows_no_d6() -> None:
    assert find_size("d6").as_json()["guide"] == {}


def test_all_sizes_go_from_shallow_to_deep() -> None:
    Path("recipes").mkdir()
    Path("recipes/mine.yaml").write_text("depth: 6\ntokens_per_step: 2048\nsteps: 10")
    names = [size.name for size in all_sizes()]
    assert names == ["d4", "mine", "d8", "d12", "d20", "d24"]


@pytest.mark.parametrize("name", ["d0", "d101", "d", "4"])
def test_no_such_size(name: str) -> None:
    with pytest.raises(InputError):
        find_size(name)
