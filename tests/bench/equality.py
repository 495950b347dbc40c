"""Our model against upstream's own code on the same weights: loss, gradients, greedy text.

    python tests/bench/equality.py --checkout ~/nanochat [--base EXPORTED] [--prompt 'import ']

`--base`: what `launch export RUN DIR --format nanochat` has written; else the small model of
`tests/nanochat/fixed.py`, of which upstream's figures are kept (`--keep FILE`) for the tests.
`--python`: an interpreter with upstream's packages. Exits 1 where a loss differs by more than 1e-5,
a gradient by more than 1e-4 (both relative), or a character does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "nanochat"))
import fixed

from nanochat.generate import generate
from nanochat.model import GPT
from nanochat.tokenizer import Tokenizer
from nanochat.upstream_checkpoint import UpstreamModel, read, write

TOKENS = fixed.TEXT_TOKENS  # of greedy text
LOSS_BOUND, GRADIENT_BOUND = 1e-5, 1e-4

# Runs in the checkout, with its own package `nanochat`.
THEIRS = """\
import json, sys
import torch
from nanochat.checkpoint_manager import load_model
ids, prompt, count = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
model, tokenizer, meta = load_model("base", torch.device("cpu"), phase="train")
batch = torch.tensor(ids)
loss = model(batch[:, :-1], batch[:, 1:].contiguous())
loss.backward()
torch.save({n: p.grad.float() for n, p in model.named_parameters()}, sys.argv[4])
model.eval()
start = tokenizer.encode(prompt, prepend="<|bos|>")
with torch.no_grad():
    text = tokenizer.decode(list(model.generate(start, count, temperature=0)))
print(json.dumps({"loss": loss.item(), "text": text}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--prompt", default="import ")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = arguments.base or small_model(Path(folder, "base"))
        model = read(base)
        rows = fixed.rows() % model.config.vocab_size
        rows = rows[:, : model.config.sequence_length + 1]
        gradients = Path(folder, "gradients.pt")
        theirs = upstream(arguments, base, rows, gradients)
        theirs["gradients"] = torch.load(gradients, weights_only=True)
        if arguments.keep:
            kept = {**theirs, "gradients": fixed.traces(theirs["gradients"])}
            arguments.keep.write_text(json.dumps(kept, indent=1) + "\n")
        sys.exit(compare(own(model, rows, arguments.prompt), theirs))


def small_model(base: Path) -> Path:
    tokenizer = Tokenizer([bytes([byte]) for byte in range(256)], fixed.CONFIG.vocab_size)
    tensors = fixed.model().state_dict()
    write(base, "d4", UpstreamModel(fixed.CONFIG, tensors, tokenizer, 0, None),
          tokens_per_step=256)  # fmt: skip
    return base


def upstream(
    arguments: argparse.Namespace, base: Path, rows: Tensor, gradients: Path
) -> dict[str, Any]:
    checkout = arguments.checkout.expanduser().absolute()
    environment = {
        **os.environ, "NANOCHAT_BASE_DIR": str(base.absolute()), "PYTHONPATH": str(checkout),
        "NANOCHAT_DTYPE": "float32", "TORCHDYNAMO_DISABLE": "1",
    }  # fmt: skip
    words = [json.dumps(rows.tolist()), arguments.prompt, str(TOKENS), str(gradients)]
    done = subprocess.run(
        [arguments.python, "-c", THEIRS, *words],
        env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def own(found: UpstreamModel, rows: Tensor, prompt: str) -> dict[str, Any]:
    model = GPT.empty(found.config)
    model.load_state_dict(found.tensors)
    loss = model(rows[:, :-1], rows[:, 1:], denominator=rows[:, 1:].numel())
    loss.backward()
    start = [found.tokenizer.bos_id, *found.tokenizer.encode(prompt)]
    ids = list(generate(model, start, max_tokens=TOKENS, temperature=0))
    gradients = {n: p.grad for n, p in model.named_parameters()}
    return {"loss": loss.item(), "text": found.tokenizer.decode(ids), "gradients": gradients}


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> int:
    loss = abs(ours["loss"] - theirs["loss"]) / theirs["loss"]
    print(f"loss      ours {ours['loss']:.7f}, upstream {theirs['loss']:.7f}: {loss:.1e} relative")
    worst = max((difference(ours["gradients"][n], t), n) for n, t in theirs["gradients"].items())
    print(f"gradients {len(theirs['gradients'])}, the worst {worst[1]}: {worst[0]:.1e} relative")
    same = ours["text"] == theirs["text"]
    print(f"greedy    {TOKENS} tokens {'identical' if same else 'DIFFERENT'}: {ours['text']!r}")
    if not same:
        print(f"          upstream: {theirs['text']!r}")
    return int(loss > LOSS_BOUND or worst[0] > GRADIENT_BOUND or not same)


def difference(one: Tensor, other: Tensor) -> float:
    """Norm of the difference over the norm."""
    return float((one - other).norm() / other.norm().clamp(min=1e-12))


if __name__ == "__main__":
    main()
