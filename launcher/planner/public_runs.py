"""What others, and we, have logged of training nanochat: speeds, memory, bits per byte, sources.

Figures only, no run is quoted that has no source. A figure is `logged` where the run's own log or
its author says it, `derived` where it is worked out from others that are.
"""

from __future__ import annotations

from dataclasses import dataclass

from launcher.planner.public_run import BitsPerByte, Precision, PublicRun
from nanochat.sizes import ModelConfig, parameter_counts

MIB = 2**20
HOUR = 3600
CLIMBMIX = "ClimbMix"
FINEWEB_EDU = "FineWeb-EDU"  # upstream's text until March 2026
OUR_ENGLISH = "English, 55 MB"
FORK = "lzwjava/nanochat"  # of the guide's author: the primary source of most of its figures
NOTES = "lzwjava.github.io"  # their notes
UPSTREAM = "karpathy/nanochat"
OURS = "this project's README, Measured, 2026-11-22"

RTX_4070 = "NVIDIA GeForce RTX 4070"
RTX_3090 = "NVIDIA GeForce RTX 3090"
RTX_4090 = "NVIDIA GeForce RTX 4090"
RTX_5090 = "NVIDIA GeForce RTX 5090"
H100 = "NVIDIA H100 80GB HBM3"
MI300X = "AMD Instinct MI300X"
CPU_PAIR = "i9-13900KF and i5-12450H"


def _model(depth: int, *, context: int = 2048, windows: str = "L", **others: int) -> ModelConfig:
    return ModelConfig(depth=depth, sequence_length=context, window_pattern=windows, **others)


def _at(steps: int, tokens_per_step: int, val_bpb: float) -> BitsPerByte:
    return BitsPerByte(steps * tokens_per_step, val_bpb)


# The guide's author, June 2026. The d12's first 87,000 steps were on FineWeb-EDU by the run's name
# and the size of its shards, whatever its notes call them.
RTX4070_D8 = PublicRun(
    model=_model(8, context=1024, windows="SSSL"),
    hardware="RTX 4070, 12 GB",
    gpu_model=RTX_4070,
    precision="bfloat16",
    tokens_per_second=103_600,
    tokens=5_000 * 32_768,
    tokens_per_step=32_768,
    peak_bytes=round(2_179.31 * MIB),
    text=CLIMBMIX,
    bits_per_byte=(
        _at(0, 32_768, 3.1432),
        _at(1_000, 32_768, 1.1774),
        _at(2_000, 32_768, 1.1024),
        _at(5_000, 32_768, 0.9910),
    ),
    source=f"{FORK} run_rtx4070.log, 2026-06-04",
    note="4 rows a pass; S windows masked, which saves nothing",
)
RTX4070_D12 = PublicRun(
    model=_model(12),
    hardware="RTX 4070, 12 GB",
    gpu_model=RTX_4070,
    precision="bfloat16",
    tokens_per_second=55_700,
    tokens=87_000 * 65_536,
    tokens_per_step=65_536,
    peak_bytes=9_448 * MIB,
    text=FINEWEB_EDU,
    bits_per_byte=(
        _at(0, 65_536, 3.221),
        _at(1_000, 65_536, 1.167),
        _at(5_000, 65_536, 1.018),
        _at(10_000, 65_536, 0.935),
        _at(20_000, 65_536, 1.016),
        _at(87_000, 65_536, 0.866),
    ),
    source=f"{NOTES} nanochat-rtx-4070-training-summary-en, 2026-06",
    note=(
        "8 rows a pass; a resume at 10,000 steps began its learning rates anew; "
        "from there on: nanochat-base-training-report-en"
    ),
)
RTX4070_D12_ON = PublicRun(
    model=_model(12),
    hardware="RTX 4070, 12 GB",
    gpu_model=RTX_4070,
    precision="bfloat16",
    tokens_per_second=55_700,
    tokens=200_000 * 65_536,
    tokens_per_step=65_536,
    peak_bytes=9_448 * MIB,
    text=CLIMBMIX,
    bits_per_byte=(_at(130_000, 65_536, 0.7800), _at(200_000, 65_536, 0.853)),
    source=f"{NOTES} training-a-286m-parameter-nanochat-en, 2026-06",
    note="the run before, gone on with on other text",
)
CPU_D4 = PublicRun(
    model=_model(4, context=512, windows="SSSL", head_dim=64),
    hardware=CPU_PAIR,
    gpu_model=None,
    devices=2,
    precision="float32",
    tokens_per_second=122,
    slowest=105,
    fastest=134,
    tokens=10 * 2_048,
    tokens_per_step=2_048,
    text=CLIMBMIX,
    bits_per_byte=(_at(0, 2_048, 3.2044), _at(5, 2_048, 3.2028), _at(10, 2_048, 3.1970)),
    source=f"{NOTES} multi-node-cpu-ddp-training-success-en, 2026-06",
    note="median of 9 steps, over Wi-Fi",
)
CPU_D8 = PublicRun(
    model=_model(8, context=1024, windows="SSSL"),
    hardware=CPU_PAIR,
    gpu_model=None,
    devices=2,
    precision="float32",
    tokens_per_second=56,
    slowest=55,
    fastest=57,
    tokens_per_step=4_096,
    text=CLIMBMIX,
    source=f"{NOTES} distributed-nanochat-training-summary-en, 2026-06",
    note="over Ethernet on USB",
)


def _mi300x(
    log: str, tokens_per_second: int, precision: Precision, steps: int, note: str, windows: str
) -> PublicRun:
    """`steps` after which it was broken off, before its first validation."""
    return PublicRun(
        model=_model(24, windows=windows),
        hardware="MI300X, 192 GB",
        gpu_model=MI300X,
        precision=precision,
        tokens_per_second=tokens_per_second,
        tokens=steps * 524_288,
        tokens_per_step=524_288,
        text=CLIMBMIX,
        source=f"{FORK} {log}, 2026-06-09",
        note=f"no bits per byte: broken off after {steps} of 29,000 steps; {note}",
    )


MI300X_D24 = _mi300x("run_mi300x_d24.log", 67_700, "bfloat16", 208, "about 105 GB", "L")
"""By its author's notes; the median of its log is 67,304."""
MI300X_D24_FP8 = _mi300x("run_mi300x_d24_fp8.log", 81_600, "float8", 37, "32 rows a pass", "L")
MI300X_D24_FA2 = _mi300x(
    "run_mi300x_d24_fa2_fp8.log", 98_500, "float8", 34, "Flash Attention 2", "SSSL"
)

OTHER_CARDS = (
    PublicRun(
        model=_model(12, windows="SSSL"),
        hardware="RTX 3090, 24 GB",
        gpu_model=RTX_3090,
        precision="bfloat16",
        tokens_per_second=39_963,
        source=f"{UPSTREAM} issue 509, 2026-02",
        note="S windows masked, which saves nothing",
    ),
    PublicRun(
        model=_model(20, vocab_size=65_536),
        hardware="RTX 4090, 24 GB",
        gpu_model=RTX_4090,
        precision="bfloat16",
        tokens_per_second=round(11.2e9 / (3 * 24 * HOUR), -2),
        basis="derived",
        tokens=11_200_000_000,
        source=f"{UPSTREAM} issue 157, 2025-10",
        note="about 3 days; the model of October 2025, without value embeddings",
    ),
    PublicRun(
        model=_model(24),
        hardware="RTX 5090, 32 GB",
        gpu_model=RTX_5090,
        precision="float8",
        tokens_per_second=round(29_232 * 262_144 / (3.8 * 24 * HOUR), -2),
        basis="derived",
        tokens=29_232 * 262_144,
        tokens_per_step=262_144,
        text="FinePDFs-EDU, DCLM and FineWeb-EDU",
        bits_per_byte=(_at(24_000, 262_144, 0.830),),
        source="Nekochu/nanochat-d24 on Hugging Face, 2026-03-23",
        note="about 3.8 days, activations computed again",
    ),
    *(
        PublicRun(
            model=_model(depth),
            hardware="RTX 4070, 12 GB, WSL2",
            gpu_model=RTX_4070,
            precision="bfloat16",
            tokens_per_second=tokens_per_second,
            peak_bytes=round(gigabytes * 1e9),
            source="Bl4ckd09/nanochat-on-rtx4070",
            note="rounded by its author",
        )
        for depth, tokens_per_second, gigabytes in (
            (6, 160_000, 1.1),
            (12, 40_000, 3.9),
            (16, 19_000, 7.1),
            (18, 13_000, 9.3),
        )
    ),
)

# d4 to d12 are loops of small kernels that wait for the CPU: two hosts differed by 10 to 25%.
OUR_H100 = tuple(
    PublicRun(
        model=model,
        hardware="H100, 80 GB",
        gpu_model=H100,
        precision="bfloat16",
        tokens_per_second=tokens_per_second,
        tokens_per_step=tokens_per_step,
        peak_bytes=round(gigabytes * 1e9),
        text=OUR_ENGLISH,
        source=OURS,
    )
    for model, tokens_per_step, tokens_per_second, gigabytes in (
        (_model(4, context=512, head_dim=64), 2_048, 38_600, 1.2),
        (_model(8, context=1024), 32_768, 209_000, 5.8),
        (_model(12), 65_536, 179_000, 10.9),
        (_model(20), 524_288, 95_300, 28.5),
        (_model(24), 524_288, 65_700, 41.4),
    )
)
OUR_D4 = PublicRun(
    model=_model(4, context=512, head_dim=64),
    hardware="H100, 80 GB",
    gpu_model=H100,
    precision="float32",
    tokens=1_000 * 2_048,
    tokens_per_step=2_048,
    text=OUR_ENGLISH,
    bits_per_byte=(_at(1_000, 2_048, 1.171),),
    source="this project's README, Why d4 warms up for 10 steps, 2026-11-22",
    note="mean of two orders of the rows, 1.168 and 1.174",
)
OUR_CPU = tuple(
    PublicRun(
        model=model,
        hardware="2 cores of an AMD EPYC",
        gpu_model=None,
        precision="float32",
        tokens_per_second=tokens_per_second,
        tokens_per_step=tokens_per_step,
        peak_bytes=round(gigabytes * 1e9),
        text=OUR_ENGLISH,
        source=OURS,
    )
    for model, tokens_per_step, tokens_per_second, gigabytes in (
        (_model(4, context=512, head_dim=64), 2_048, 1_019, 1.50),
        (_model(8, context=1024), 4_096, 320, 4.27),
        (_model(12), 4_096, 88, 8.42),
    )
)


def _eight_h100(
    model: ModelConfig,
    source: str,
    bits_per_byte: BitsPerByte,
    precision: Precision = "bfloat16",
    *,
    text: str,
    hours: float | None = None,
    tokens_per_step: int | None = None,
    note: str = "",
) -> PublicRun:
    """Upstream's own machine; tokens per second from the hours of training alone, where given."""
    tokens = bits_per_byte.tokens
    return PublicRun(
        model=model,
        hardware="8 H100, 80 GB each",
        gpu_model=H100,
        devices=8,
        precision=precision,
        tokens_per_second=round(tokens / (hours * HOUR), -3) if tokens and hours else None,
        basis="derived",
        tokens=tokens,
        tokens_per_step=tokens_per_step,
        text=text,
        bits_per_byte=(bits_per_byte,),
        source=f"{UPSTREAM} {source}",
        note=note,
    )


_D24 = _model(24, windows="SSSL")
_D24_SCALING = parameter_counts(_D24).scaling  # the leaderboard gives tokens per one of these
UPSTREAM_RUNS = (
    *(
        _eight_h100(
            _model(depth),
            "dev/LOG.md, 2026-01-11",
            BitsPerByte(None, val_bpb),
            text=FINEWEB_EDU,
            note="before value embeddings",
        )
        for depth, val_bpb in ((8, 1.0782), (12, 0.9693), (16, 0.9002), (20, 0.8526))
    ),
    _eight_h100(
        _D24,
        "dev/LEADERBOARD.md run 1, 2026-01-29",
        _at(16_704, 524_288, 0.74833),
        text=FINEWEB_EDU,
        hours=3.04,
        tokens_per_step=524_288,
    ),
    _eight_h100(
        _D24,
        "dev/LEADERBOARD.md run 4, 2026-03-04",
        BitsPerByte(round(9.5 * _D24_SCALING), 0.71854),
        "float8",
        text=CLIMBMIX,
        hours=2.02,
    ),
    _eight_h100(
        _D24,
        "dev/LEADERBOARD.md run 6, 2026-03-14",
        BitsPerByte(8 * _D24_SCALING, 0.71800),
        "float8",
        text=CLIMBMIX,
        hours=1.65,
    ),
)

PUBLIC_RUNS: tuple[PublicRun, ...] = (
    CPU_D4,
    CPU_D8,
    *OUR_CPU,
    RTX4070_D8,
    RTX4070_D12,
    RTX4070_D12_ON,
    *OTHER_CARDS,
    MI300X_D24,
    MI300X_D24_FP8,
    MI300X_D24_FA2,
    *OUR_H100,
    OUR_D4,
    *UPSTREAM_RUNS,
)


@dataclass(frozen=True)
class Optimum:
    """The best model for a budget of training FLOPs, as upstream's sweep found it. The ratio is the
    log's own; its tokens / its parameters give 10.0 to 11.2."""

    flops: float
    scaling_parameters: int
    tokens: int
    tokens_per_scaling_parameter: float
    val_bpb: float


OPTIMA = (  # on FineWeb-EDU, counted by matrices and head
    Optimum(1e18, 110_678_115, 1_241_505_403, 11.2, 0.8972),
    Optimum(2e18, 167_797_457, 1_785_336_422, 10.7, 0.8616),
    Optimum(5e18, 250_650_865, 2_642_234_152, 10.8, 0.8293),
    Optimum(1e19, 381_758_347, 3_806_871_243, 10.3, 0.7999),
)
OPTIMA_SOURCE = f"{UPSTREAM} dev/LOG.md, 2026-01-27"


def optimum_range() -> tuple[float, float]:
    """Least and most tokens per scaling parameter of the sweep's optima."""
    ratios = [optimum.tokens_per_scaling_parameter for optimum in OPTIMA]
    return min(ratios), max(ratios)


def runs_of_depth(depth: int) -> list[PublicRun]:
    return [run for run in PUBLIC_RUNS if run.model.depth == depth]
