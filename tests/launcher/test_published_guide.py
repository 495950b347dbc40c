"""Every line of the published guide: what it says, what we say, and whether it holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from launcher.planner.published_guide import Claim, Figure, Holds, claims, markdown_lines
from launcher.planner.published_guide.claim import digits, shipped

YES, NO, ONLY_IF = Holds.YES, Holds.NO, Holds.ONLY_IF
CLAIMS = claims()

# where, as the guide has it, its figure, ours to four digits (units: the figures' own)
LINES: list[tuple[str, str, float | None, float, Holds]] = [
    ("sizes, d4: dim", "256", 256, 256, YES),
    ("sizes, d4: heads", "4", 4, 4, ONLY_IF),
    ("sizes and CPU speeds, d4: params", "37M", 37_000_000, 36_700_290, YES),
    ("sizes and CPU speeds, d4: FLOPs/token", "72M", 72_000_000, 75_498_192, YES),
    ("sizes, d4: reference", "Current CPU run", 4, 4, YES),
    ("sizes, d8: dim", "512", 512, 512, YES),
    ("sizes, d8: heads", "4", 4, 4, YES),
    ("sizes and CPU speeds, d8: params", "80M", 80_000_000, 125_829_354, NO),
    ("sizes and CPU speeds, d8: FLOPs/token", "250M", 250_000_000, 301_991_184, NO),
    ("sizes, d8: reference", "RTX 4070 target", 8, 8, YES),
    ("sizes, d12: dim", "768", 768, 768, YES),
    ("sizes, d12: heads", "6", 6, 6, YES),
    ("sizes and CPU speeds, d12: params", "286M", 286_000_000, 286_261_730, YES),
    ("sizes and CPU speeds, d12: FLOPs/token", "1.7B", 1_700_000_000, 887_098_032, NO),
    ("sizes, d12: reference", "Karpathy reference", 13_100_000_000, 1_321_210_944, NO),
    ("sizes, d20: dim", "1280", 1_280, 1_280, YES),
    ("sizes, d20: heads", "10", 10, 10, YES),
    ("sizes and CPU speeds, d20: params", "1B", 1_000_000_000, 896_533_746, NO),
    ("sizes and CPU speeds, d20: FLOPs/token", "6B", 6_000_000_000, 3_240_107_184, NO),
    ("sizes, d20: reference", "Scaling laws target", 20, 20, YES),
    ("sizes, d24: dim", "1536", 1_536, 1_536, YES),
    ("sizes, d24: heads", "12", 12, 12, YES),
    ("sizes and CPU speeds, d24: params", "1.7B", 1_700_000_000, 1_384_122_122, NO),
    ("sizes and CPU speeds, d24: FLOPs/token", "10B", 10_000_000_000, 5_284_833_552, NO),
    ("sizes, d24: reference", "MI300X target", 24, 24, YES),
    ("horizons, heading", "from scaling laws", 13_107_200_000, 1_321_210_944, NO),
    ("horizons, d12: tokens", "200k x 65,536 = 13.1B", 13_100_000_000, 13_107_200_000, YES),
    ("horizons, d12: tokens per parameter", "45.8", 45.8, 45.79, YES),
    ("horizons, d12: optimum", "~20", 20, 12, NO),
    ("horizons, d12: val_bpb", "0.853", 0.853, 0.853, YES),
    ("horizons, d8: tokens", "5,000 x 32,768 = 164M", 164_000_000, 163_840_000, YES),
    ("horizons, d8: tokens per parameter", "2.05", 2.05, 1.302, NO),
    ("horizons, d8: very undertrained", "very undertrained", 0.1025, 0.3255, ONLY_IF),
    ("CPU speeds, heading", "2 nodes", 2, 2, YES),
    ("CPU speeds, measured", "~115", 115, 122, YES),
    ("CPU speeds, d4: tok/sec", "115", 115, 122, YES),
    ("CPU speeds, d4: time/step", "18s", 18, 16.79, ONLY_IF),
    ("CPU speeds, d4: 1000 steps", "5 hrs", 5, 4.663, ONLY_IF),
    ("CPU speeds, d8: tok/sec", "~35", 35, 56, NO),
    ("CPU speeds, d8: time/step", "58s", 58, 36.57, ONLY_IF),
    ("CPU speeds, d8: 1000 steps", "16 hrs", 16, 10.16, ONLY_IF),
    ("CPU speeds, d12: tok/sec", "~5", 5, 9.787, NO),
    ("CPU speeds, d12: time/step", "7.5min", 7.5, 3.488, ONLY_IF),
    ("CPU speeds, d12: 1000 steps", "5.2 days", 5.2, 2.422, ONLY_IF),
    ("CPU speeds, d20: tok/sec", "~1.4", 1.4, 2.68, NO),
    ("CPU speeds, d20: time/step", "26min", 26, 12.74, ONLY_IF),
    ("CPU speeds, d20: 1000 steps", "18 days", 18, 8.845, ONLY_IF),
    ("CPU speeds, formula", "∝ 1 / FLOPs", 3.286, 2.179, NO),
    ("CPU speeds, formula: bound", "compute-bound", 1, 1.746, NO),
    ("CPU speeds, formula: d4→d12", "24x", 24, 11.75, NO),
    ("CPU speeds, formula: d12", "115/24 ≈ 5", 5, 9.787, NO),
    ("realistic, d4: 20 steps", "20 x 2048 = 40,960", 40_960, 40_960, YES),
    ("realistic, d4: 20 steps", "~6 min", 6, 5.936, YES),
    ("realistic, d4: 1000 steps", "5 hours", 5, 4.947, YES),
    ("realistic, d4: 1000 steps", "basic patterns", 1_000, 1.171, YES),
    ("realistic, d4: val bpb", "~10.39", 10.39, 3.204, NO),
    ("realistic, d4: val bpb", "~3.2 (huge improvement)", 3.2, 1.171, NO),
    ("realistic, d8: 1000 steps", "1000 x 32768 = 33M", 33_000_000, 32_768_000, YES),
    ("realistic, d8: 1000 steps", "~16 hours", 16, 162.5, NO),
    ("realistic, d8: 5000 steps", "decent results", 5_000, 0.991, ONLY_IF),
    ("realistic, d8: 5000 steps", "3.3 days", 3.3, 33.86, NO),
    ("realistic, d8: val bpb", "~1.5-2.0", 1.5, 1.177, NO),
    ("realistic, d12: 10k steps", "10k x 65536 = 655M", 655_000_000, 655_360_000, YES),
    ("realistic, d12: 10k steps", "min useful", 10_000, 0.935, ONLY_IF),
    ("realistic, d12: 10k steps", "36 hours", 36, 18_600, NO),
    ("realistic, d12: 200k steps", "30 days", 30, 15_500, NO),
    ("realistic, d12: best", "best 0.853", 0.853, 0.78, NO),
    ("realistic, d12: on an RTX 4070", "~65 hours", 65, 65.37, YES),
    ("verdict", "d4/d8 experiments", None, 13.13, ONLY_IF),
    ("verdict", "d12+", 12, 2.832, ONLY_IF),
    ("verdict", "~100x", 100, 1_850, NO),
    ("closing, loss", "10.40", 10.4, 10.4, YES),
    ("closing, loss", "10.40 → 10.39 in 5 steps", 5, 40, NO),
    ("closing, coherent text", "d8 with 5000 steps", 5_000, 0.991, ONLY_IF),
    ("closing, on CPUs", "~3 days", 3, 33.86, NO),
    ("closing, on an RTX 4070", "a few hours", 2, 0.4393, NO),
]


def test_the_lines_are_these_in_the_guides_order() -> None:
    assert [(claim.line, claim.quote) for claim in CLAIMS] == [line[:2] for line in LINES]


@pytest.mark.parametrize(
    ("claim", "guide", "ours", "holds"),
    [(claim, *line[2:]) for claim, line in zip(CLAIMS, LINES, strict=True)],
    ids=[f"{line[0]} {line[1]}" for line in LINES],
)
def test_line(claim: Claim, guide: float | None, ours: float, holds: Holds) -> None:
    if guide is None:
        assert claim.guide is None
    else:
        assert claim.guide is not None
        assert claim.guide.value == pytest.approx(guide, rel=5e-4)
    assert claim.ours is not None
    assert claim.ours.value == pytest.approx(ours, rel=5e-4)
    assert claim.holds == holds
    assert claim.why


FIGURES = {  # of the guide, table by table: figures and judgements in its order
    "sizes, d4": "256 4 Current CPU run",
    "sizes, d8": "512 4 RTX 4070 target",
    "sizes, d12": "768 6 Karpathy reference",
    "sizes, d20": "1280 10 Scaling laws target",
    "sizes, d24": "1536 12 MI300X target",
    "sizes and CPU speeds, d4": "37M 72M",
    "sizes and CPU speeds, d8": "80M 250M",
    "sizes and CPU speeds, d12": "286M 1.7B",
    "sizes and CPU speeds, d20": "1B 6B",
    "sizes and CPU speeds, d24": "1.7B 10B",
    "horizons, heading": "scaling laws",
    "horizons, d12": "200k 65,536 13.1B 45.8 20 0.853",
    "horizons, d8": "5,000 32,768 164M 2.05 very undertrained",
    "CPU speeds, heading": "2 nodes",
    "CPU speeds, measured": "115",
    "CPU speeds, d4": "115 18s 5",
    "CPU speeds, d8": "35 58s 16",
    "CPU speeds, d12": "5 7.5min 5.2",
    "CPU speeds, d20": "1.4 26min 18",
    "CPU speeds, formula": "∝ FLOPs compute-bound 24x 115/24",
    "realistic, d4": "20 2048 40,960 6 5 patterns 10.39 3.2 improvement",
    "realistic, d8": "1000 32768 33M 16 decent 3.3 1.5-2.0",
    "realistic, d12": "10k 65536 655M 36 30 0.853 65 useful",
    "verdict": "d4/d8 d12+ 100x",
    "closing": "10.40 10.39 5 d8 5000 3 few hours",
}


@pytest.mark.parametrize("where", FIGURES)
def test_no_figure_of_the_guide_is_missing(where: str) -> None:
    said = " ".join(claim.quote for claim in CLAIMS if re.match(rf"{where}\b", claim.line))
    words = re.split(r"[\s~()]+", said)
    assert set(FIGURES[where].split()) <= set(words)


def test_a_recipe_of_the_users_own_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    Path("recipes/d4.yaml").write_text("depth: 6\ntokens_per_step: 2048\nsteps: 10")
    shipped.cache_clear()
    assert claims() == CLAIMS


def test_quotes_are_figures_not_sentences() -> None:
    assert max(len(claim.quote.split()) for claim in CLAIMS) <= 6


def test_whys_are_one_sentence_that_a_table_can_hold() -> None:
    for claim in CLAIMS:
        assert not re.search(r"\. |\.$|\||\n", claim.why), claim


def test_json() -> None:
    [claim] = [claim for claim in CLAIMS if claim.line == "realistic, d8: val bpb"]
    assert json.loads(json.dumps(claim.as_json())) == {
        "quote": "~1.5-2.0",
        "line": "realistic, d8: val bpb",
        "guide": {"value": 1.5, "unit": "bits per byte", "high": 2.0},
        "ours": {"value": 1.1774, "unit": "bits per byte"},
        "holds": "no",
        "why": claim.why,
    }
    judgement = [claim.as_json() for claim in CLAIMS if claim.guide is None]
    assert [found["guide"] for found in judgement] == [None]


def test_markdown() -> None:
    lines = markdown_lines(CLAIMS)
    assert len(lines) == len(CLAIMS) + 2
    assert {line.count("|") for line in lines} == {6}
    assert lines[0] == "| where | the guide says | we say | holds | why |"
    assert lines[3] == (
        "| sizes, d4: heads | 4 | 4 heads | only if | only with heads of 64 channels; of 128, "
        "as in other rows, 2 |"
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [(12, "12"), (36_700_290, "36,700,290"), (45.79, "45.8"), (0.3255, "0.326"), (1850.4, "1,850")],
)
def test_digits(number: float, words: str) -> None:
    assert digits(number) == words


def test_a_range_is_written_as_one() -> None:
    assert str(Figure(1.5, "bits per byte", high=2.0)) == "1.50 to 2 bits per byte"
