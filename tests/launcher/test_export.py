"""launch export and import: what goes out comes back, here and through upstream's layout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from records import make_folder
from safetensors.torch import load_file

from launcher.config.recipe import Recipe
from launcher.runs.folder import RunFolder
from nanochat.checkpoint import CheckpointFolder
from nanochat.model import GPT
from nanochat.tokenizer import Tokenizer

ROOT = Path(__file__).parents[2]
RECIPE = Recipe(
    depth=2, head_dim=32, sequence_length=64, vocab_size=265, tokens_per_step=128, steps=9
)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Stopped after 7 of 9 steps."""
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    settings = RECIPE.model_dump(mode="json")
    path = tmp_path / "home" / "runs" / "mine"
    folder = make_folder(path, recipe_name="tiny", settings=settings)
    model = GPT.build(RECIPE.model, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    state = {"step": 7, "train_loss": 5.25, "val_bpb": 2.5, "identity": {}}
    CheckpointFolder(folder.checkpoints).save(state, model.state_dict(), {})
    Tokenizer([bytes([byte]) for byte in range(256)], 265).save(folder.tokenizer)
    return folder


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "launcher.cli", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def greedy(run: str) -> str:
    done = launch("sample", run, "--prompt", "a", "--temperature", "0", "--tokens", "20", "--json")
    assert done.returncode == 0, done.stderr
    text: str = json.loads(done.stdout)["text"]
    return text


@pytest.mark.parametrize("layout", ["safetensors", "nanochat"])
def test_what_goes_out_comes_back(run: RunFolder, layout: str) -> None:
    done = launch("export", "mine", "out", "--format", layout, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["run"], said["step"], said["format"]) == ("mine", 7, layout)
    assert sorted(said["files"]) == sorted(
        path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file()
    )
    imported = launch("import", "out", "--name", "back", "--json")
    assert imported.returncode == 0, imported.stderr
    weights = [
        load_file(run.path.with_name(name) / "checkpoints" / "step-00000007" / "model.safetensors")
        for name in ("mine", "back")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert greedy("back") == greedy("mine")
    listed = {each["run"]: each for each in json.loads(launch("runs", "--json").stdout)}
    assert (listed["back"]["status"], listed["back"]["step"]) == ("imported", 7)
    assert listed["back"]["val_bpb"] == 2.5
    again = launch("export", "back", "out")
    assert again.returncode == 2 and "out is not empty" in again.stderr
    said = f"imported from {Path('out').absolute()} after 7 steps\n"
    assert launch("logs", "back").stdout == said
    taken = launch("import", "out", "--name", "mine")
    assert taken.returncode == 2 and "choose another --name\n" in taken.stderr


@pytest.mark.parametrize(
    "command", [("resume", "back"), ("plot", "back"), ("runs", "compare", "back", "mine")]
)
def test_what_an_imported_run_cannot_do_is_said(run: RunFolder, command: tuple[str, ...]) -> None:
    assert launch("export", "mine", "out").returncode == 0
    assert launch("import", "out", "--name", "back").returncode == 0
    refused = launch(*command)
    assert refused.returncode == 2 and "error: run 'back' was imported" in refused.stderr
    assert "launch sample back" in refused.stderr


def test_facts_of_the_training_come_along(run: RunFolder) -> None:
    assert launch("export", "mine", "out").returncode == 0
    config = Path("out/config.json")
    content = json.loads(config.read_text())
    content["training"] |= {"source": "climbmix:8", "train_loss": 3.25}
    config.write_text(json.dumps(content))
    assert launch("import", "out", "--name", "back").returncode == 0
    assert launch("export", "back", "again").returncode == 0
    again = json.loads(Path("again/config.json").read_text())["training"]
    assert (again["source"], again["train_loss"]) == ("climbmix:8", 3.25)


def test_the_card_says_what_it_is(run: RunFolder) -> None:
    assert launch("export", "mine", "out").returncode == 0
    card = Path("out/README.md").read_text()
    assert "trained for 7 of 9 steps of 128\ntokens on `embedded`" in card
    assert "| validation bits per byte | 2.5 |" in card
    config = json.loads(Path("out/config.json").read_text())
    assert config["model"]["depth"] == 2 and config["training"]["tokens"] == 7 * 128


@pytest.mark.parametrize(
    "facts, said",
    [
        ({"val_bpb": "x", "train_loss": {}}, None),
        ({"steps": "x"}, "training.steps: input should be a valid integer"),
        ({"steps": None}, "training.steps: input should be a valid integer"),
        ({"source": 5, "tokens_per_step": -1}, None),
    ],
)
def test_wrong_facts_leave_no_half_of_a_run(
    run: RunFolder, facts: dict[str, Any], said: str | None
) -> None:
    assert launch("export", "mine", "out").returncode == 0
    config = json.loads(Path("out/config.json").read_text())
    config["training"] |= facts
    Path("out/config.json").write_text(json.dumps(config))
    done = launch("import", "out", "--name", "im")
    imported = RunFolder(run.path.parent / "im")
    if said is None:
        assert done.returncode == 0, done.stderr
        assert imported.summary() is not None
    else:
        assert done.returncode == 2 and said in done.stderr
        assert not imported.path.exists()


def test_what_cannot_be_read_is_named(run: RunFolder) -> None:
    Path("empty").mkdir()
    Path("wrong").mkdir()
    Path("wrong/config.json").write_text('{"format": "gguf"}')
    for folder, said in (
        ("nowhere", "nowhere: no such folder"),
        ("empty", "empty: no model in it, neither config.json nor base_checkpoints/"),
        ("wrong", "wrong/config.json: not what `launch export` writes"),
    ):
        done = launch("import", folder)
        assert done.returncode == 2 and f"error: {said}" in done.stderr
        assert "Traceback" not in done.stderr
    assert not (run.path.parent / "d2-1").exists()
