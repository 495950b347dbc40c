"""A loss that explodes: what counts, and what a run does then."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny import VOCAB_SIZE, Recorder, plan, run

from nanochat.checkpoint import CheckpointFolder
from nanochat.dataset import PreparedData
from nanochat.divergence import STEPS_IN_A_ROW, LossWatch, diverged_error
from nanochat.errors import TrainingError
from nanochat.train_config import TrainConfig

UNTRAINED = math.log(VOCAB_SIZE)
LEARNT = [UNTRAINED - 3] * STEPS_IN_A_ROW


def ends_at(losses: list[float]) -> int | None:
    """The step, counted from 1, at which the loss has exploded."""
    watch = LossWatch(VOCAB_SIZE)
    for step, loss in enumerate(losses, start=1):
        watch.add(loss)
        if watch.diverged:
            return step
    return None


@pytest.mark.parametrize(
    ("losses", "end"),
    [
        ([UNTRAINED] * 1000, None),  # held back by its warm-up
        ([UNTRAINED + 0.9] * 1000, None),
        ([UNTRAINED + 1.1] * 100, 10),
        ([20.0] * 9 + [UNTRAINED] + [20.0] * 9, None),  # spikes
        (LEARNT + [20.0] * 9 + LEARNT, None),
        (LEARNT + [20.0] * 10, 20),
        (LEARNT + [UNTRAINED] * 10, 20),  # all is lost: it says the same of every token
        (LEARNT + [UNTRAINED - 0.2] * 1000, None),
        ([UNTRAINED - 0.5] * 10 + [UNTRAINED + 0.4] * 1000, None),
        ([UNTRAINED - 0.5] * 10 + [UNTRAINED + 0.6] * 10, 20),
    ],
)
def test_a_loss_has_exploded_that_stays_as_bad_as_an_untrained_models(
    losses: list[float], end: int | None
) -> None:
    assert ends_at(losses) == end


def spoilt(data: PreparedData, folder: Path, config: TrainConfig, **known: float) -> None:
    """A run of two steps. A head as large as that says one thing of every token, surely, and mostly
    another one than is there. It takes many steps to unlearn."""
    run(config, data, folder, Recorder(stop_at=2))
    checkpoint = CheckpointFolder(folder).newest()
    assert checkpoint is not None
    model = checkpoint.model_tensors()
    model["lm_head.weight"] += 100 * model["lm_head.weight"].sign()
    state = {key: value for key, value in checkpoint.state.items() if key != "best_loss"} | known
    CheckpointFolder(folder).save(state, model, checkpoint.optimizer_tensors())


def names(folder: Path) -> list[str]:
    return [path.name for path in sorted(folder.iterdir())]


@pytest.mark.parametrize(
    ("known", "before"), [({}, ""), ({"best_loss": 3.0}, "; it was 3.00 before")]
)
def test_a_run_whose_loss_explodes_ends_with_its_last_good_checkpoint(
    data: PreparedData, tmp_path: Path, known: dict[str, float], before: str
) -> None:
    """A checkpoint of an older version does not know the best loss."""
    config = plan(steps=40, checkpoint_every_steps=1, evaluate_every_steps=None)
    spoilt(data, tmp_path, config, **known)
    observer = Recorder()
    says = rf"exploded: 1\d\.\d\d nats from step 3 on.* 6\.24{before}; the newest checkpoint is of"
    with pytest.raises(TrainingError, match=f"{says} step 2") as caught:
        run(config, data, tmp_path, observer)
    assert caught.value.fix is not None
    assert "--set tokens_per_step=256" in caught.value.fix
    assert observer.of("step") == list(range(3, 12))
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_a_stop_at_a_suspicious_loss_leaves_the_last_good_checkpoint(
    data: PreparedData, tmp_path: Path
) -> None:
    config = plan(steps=40, checkpoint_keep=1, evaluate_every_steps=None)
    spoilt(data, tmp_path, config)
    run(config, data, tmp_path, Recorder(stop_at=2))
    assert names(tmp_path) == ["step-00000002", "step-00000004"]


def test_the_best_loss_goes_on_with_a_run(data: PreparedData, tmp_path: Path) -> None:
    config = plan(steps=40, evaluate_every_steps=None)
    for stop_at in (20, 2):
        run(config, data, tmp_path, Recorder(stop_at=stop_at))
    newest = CheckpointFolder(tmp_path).newest()
    assert newest is not None and newest.step == 22
    assert newest.state["best_loss"] < UNTRAINED


@pytest.mark.parametrize(
    ("dtype", "ways"),
    [
        ("float32", "--set tokens_per_step=8192"),
        ("bfloat16", "--set dtype=float32 or --set tokens_per_step=8192"),
    ],
)
def test_what_went_wrong_would_do_so_again(dtype: str, ways: str) -> None:
    error = diverged_error("it is nan", newest=0, dtype=dtype, tokens_per_step=4096)
    assert error.message == "it is nan; there is no checkpoint"
    assert error.fix == (
        f"start a new run with {ways}: resuming would diverge again (runs are deterministic)"
    )
