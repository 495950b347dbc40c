"""Check that the numeric tests notice wrong changes, on this CPU and on smaller instruction sets.

    python tests/bench/wrong_changes.py [--only NAME]...

Makes one wrong change at a time in a copy of nanochat/, runs the numeric tests of
tests/nanochat/test_instruction_sets.py on it (with one thread, on all of the CPU and capped to the
two largest instruction sets below it), and prints how many fail, and by how many times their bound
the golden losses of d4 are off. The first row is the code as it is. Exits 1 if a wrong change
passes with any of these instruction sets, or if the code as it is fails. Takes a minute per change.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests/nanochat")]
from instruction_sets import CAPS, caps_below_this_cpu  # noqa: E402
from test_instruction_sets import LEFT_OUT, MOST_CAPS, NUMERIC_TESTS, SECONDS  # noqa: E402


@dataclass(frozen=True)
class WrongChange:
    """`file`, below nanochat/, with `new` in place of its only `old`."""

    name: str
    file: str
    old: str
    new: str


RIGHT = WrongChange("none: the code as it is", "model.py", "QK_SCALE = 1.2 ", "QK_SCALE = 1.2 ")
ADAMW, MUON = "optimizer/adamw.py", "optimizer/muon.py"
WRONG_CHANGES = (
    WrongChange("rate of the matrices + 1%", "optimizer/muon_adamw.py", "= 0.02", "= 0.0202"),
    WrongChange("rate of the head + 1%", ADAMW, "0.008", "0.00808"),
    WrongChange("rate of the embeddings + 1%", ADAMW, "0.3,", "0.303,"),
    WrongChange("rate of the value embeddings + 1%", ADAMW, "0.15,", "0.1515,"),
    WrongChange("rates by the wrong width", "optimizer/muon_adamw.py", "= 768", "= 760"),
    WrongChange(
        "rates by batch^0.49", "scaling.py",
        "math.sqrt(tokens_per_step / REFERENCE_TOKENS_PER_STEP)",
        "(tokens_per_step / REFERENCE_TOKENS_PER_STEP) ** 0.49",
    ),
    WrongChange("warm-down to 0", "optimizer/schedule.py", "RATE = 0.05", "RATE = 0.0"),
    WrongChange("warm-down of 60%", "optimizer/schedule.py", "= 0.65", "= 0.60"),
    WrongChange("momentum from 0.86", "optimizer/schedule.py", "0.85, 0.97", "0.86, 0.97"),
    WrongChange(
        "no Nesterov momentum", MUON,
        "gradient.lerp_(momentum_buffer, momentum)", "momentum_buffer.clone()",
    ),
    WrongChange("no equilibration of rows", MUON, "    x = x * (_frob", "    _ = x * (_frob"),
    WrongChange("one polynomial too few", MUON, "in POLAR_EXPRESS:", "in POLAR_EXPRESS[:4]:"),
    WrongChange("no variance per row", MUON, "    update *= scale *", "    _ = scale *"),
    WrongChange("no factor of the shape", MUON, " * max(1.0, rows / columns) ** 0.5", ""),
    WrongChange("weight decay on all weights", MUON, "weight_decay * agree", "weight_decay"),
    WrongChange("weight decay + 1%", "scaling.py", "DECAY = 0.28", "DECAY = 0.2828"),
    WrongChange("epsilon of AdamW 1e-8", ADAMW, "EPSILON = 1e-10", "EPSILON = 1e-8"),
    WrongChange("queries and keys x 1.21", "model.py", "QK_SCALE = 1.2 ", "QK_SCALE = 1.21 "),
    WrongChange("value gates up to 2", "model.py", "gate = 3 *", "gate = 2 *"),
    WrongChange("no backout", "model.py", "backout_lambda.to(x.dtype) *", "backout_lambda * 0 *"),
    WrongChange("no smear", "model.py", "rest + gate * previous", "rest + 0 * gate * previous"),
    WrongChange("softcap of 16", "loss.py", "SOFTCAP = 15.0", "SOFTCAP = 16.0"),
    WrongChange(
        "a mean over ranks of the tables' rows", "exchange.py",
        "rows[: len(ids)])", "rows[: len(ids)] / len(self.touched))",
    ),
    WrongChange(
        "a first update of rounding", "optimizer/muon_adamw.py", "if step == 0:", "if False:"
    ),
    WrongChange(
        "momentum stays at 0.85", "optimizer/muon_adamw.py",
        "self.schedule.momentum(step)", "self.schedule.momentum(0)",
    ),
    WrongChange(
        "no weight decay of the matrices", "optimizer/muon_adamw.py",
        "self._weight_decay * self.schedule.weight_decay(step)", "0.0",
    ),
    WrongChange(
        "weight decay without its schedule", "optimizer/muon_adamw.py",
        " * self.schedule.weight_decay(step)", "",
    ),
    WrongChange(
        "variance of one step only", "optimizer/muon_adamw.py",
        "self._variance[name],", "self._variance[name].clone(),",
    ),
    WrongChange(
        "rates not lowered above width 768", "optimizer/muon_adamw.py",
        "by_width = (model.config.dim / REFERENCE_DIM) ** -0.5",
        "by_width = max(1.0, (model.config.dim / REFERENCE_DIM) ** -0.5)",
    ),
    WrongChange(
        "sizes by another vocabulary", "scaling.py",
        "replace(config, depth=REFERENCE_DEPTH)", "ModelConfig(depth=REFERENCE_DEPTH)",
    ),
    WrongChange("backout of the last layer but one", "model.py", "depth // 2:", "depth - 2:"),
    WrongChange(
        "x0 falls by 0.05 a layer", "model.py", "0.20 - 0.15 * layer / last", "0.20 - 0.05 * layer"
    ),
    WrongChange(
        "first queries x 0.4", "model.py",
        'attn.c_q.weight", -bound', 'attn.c_q.weight", -0.4 * bound',
    ),
    WrongChange(
        "first value embeddings x 0.4", "model.py",
        '{layer}.weight", -bound', '{layer}.weight", -0.4 * bound',
    ),
    WrongChange(
        "positions in bfloat16", "model.py",
        "self.config.sequence_length, dtype=torch.float32)",
        "self.config.sequence_length, dtype=self.dtype)",
    ),
    WrongChange(
        "bfloat16: the last chunk's gradient only", "loss.py",
        "grad_head[:vocab_size] += torch.mm", "grad_head[:vocab_size] = torch.mm",
    ),
    WrongChange(
        "bfloat16: no Nesterov momentum", MUON,
        "update.bfloat16() if", "momentum_buffer.bfloat16() if",
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names of changes")
    only = parser.parse_args().only
    sets: dict[str, Mapping[str, str]] = {
        name: CAPS[name] for name in caps_below_this_cpu()[-MOST_CAPS:]
    }
    sets["all of this CPU"] = {}
    changes = [change for change in WRONG_CHANGES if any(part in change.name for part in only)]
    print("| change |", " | ".join(sets), "|")
    print("|---" * (len(sets) + 1) + "|")
    missed = False
    with ThreadPool(os.cpu_count()) as pool:
        for change in (RIGHT, *changes):
            jobs = [(change, environment) for environment in sets.values()]
            found = pool.starmap(run, jobs, chunksize=1)
            missed |= any((failed > 0) == (change is RIGHT) for failed, _ in found)
            cells = [f"{failed} failed, {losses}" for failed, losses in found]
            print(f"| {change.name} |", " | ".join(cells), "|", flush=True)
    sys.exit(missed)


def apply(change: WrongChange, path: Path) -> None:
    """Make the change. Raises ValueError if its old text no longer occurs exactly once."""
    code = path.read_text()
    if code.count(change.old) != 1:
        raise ValueError(f"{change.name}: {code.count(change.old)} times {change.old!r} in {path}")
    path.write_text(code.replace(change.old, change.new))


def run(change: WrongChange, environment: Mapping[str, str]) -> tuple[int, str]:
    """Return the number of numeric tests that fail, and how far the losses of d4 are off."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("nanochat", "tests/nanochat"):
            shutil.copytree(ROOT / name, copy / name)
        shutil.copy(ROOT / "pyproject.toml", copy)
        apply(change, copy / "nanochat" / change.file)
        tests = [str(copy / "tests/nanochat" / name) for name in NUMERIC_TESTS]
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", LEFT_OUT, *tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), **environment},
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
    failed = sum(int(count) for count in re.findall(r"(\d+) (?:failed|error)", result.stdout))
    if result.returncode not in (0, 1) or (result.returncode == 1) != (failed > 0):
        raise RuntimeError(f"the tests did not run: {result.stdout[-2000:]}{result.stderr[-2000:]}")
    off = re.search(r"off by ([\d.,]+) bounds", result.stdout)
    return failed, f"losses off by {off[1]} bounds" if off else "losses within the bound"


if __name__ == "__main__":
    main()
