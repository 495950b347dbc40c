"""A run that came home goes back whole, or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from records import make_folder

from launcher.errors import CommandFailed
from launcher.remote.push_run import newest_resumable, push_run
from launcher.runs.record import read_json, write_json
from launcher.ssh.fake import FakeConnection
from nanochat.progress import no_progress

PARTS = {"model.safetensors": b"m", "optimizer.safetensors": b"o", "state.json": b"{}"}


@pytest.mark.parametrize("damaged", [False, True])
def test_a_run_goes_back_whole_or_not_at_all(tmp_path: Path, damaged: bool) -> None:
    folder = make_folder(tmp_path / "d4-1", run="d4-1", cluster="home", text={})
    for step, parts in (("step-00000007", PARTS), ("step-00000009", {"model.safetensors": b"m"})):
        (folder.checkpoints / step).mkdir(parents=True)
        for name, content in parts.items():
            (folder.checkpoints / step / name).write_bytes(content)
    checkpoint = newest_resumable(folder)
    assert checkpoint == folder.checkpoints / "step-00000007"  # the newer one can only speak
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest()} for name, content in PARTS.items()
    }
    write_json(checkpoint / "manifest.json", {"files": files})
    folder.tokenizer.write_bytes(b"tokens")
    head = FakeConnection("one")
    if damaged:
        (checkpoint / "optimizer.safetensors").write_bytes(b"x")
        with pytest.raises(CommandFailed, match="another hash"):
            push_run(head, folder, checkpoint, "there", {}, no_progress)
        assert "there/run.json" not in head.files
        return
    push_run(head, folder, checkpoint, "there", {"text": {"source": "k"}}, no_progress)
    assert head.files["there/checkpoints/step-00000007/optimizer.safetensors"] == b"o"
    assert head.files["there/tokenizer.json"] == b"tokens"
    local = read_json(folder.spec_file)
    assert local is not None and local["text"] == {}
    assert json.loads(head.files["there/run.json"]) == {**local, "text": {"source": "k"}}
