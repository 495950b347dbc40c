"""The table of faults: each done for real to d4 on two one-core test hosts, and compared.

    python tests/bench/faults.py [--data 'files:~/text/*.parquet'] [--only kill,bit] [--json]

An undisturbed run of `--steps` steps first, then as many runs as the faults need, each to its last
step: every loss and the weights of both hosts are compared with the undisturbed one's. A fault
strikes halfway between two checkpoints, on the head and on the other host in turn. What is not
survived within `--limit` seconds is a "no", and the next fault begins with a new run.

Seconds are from the fault (not from its undoing) to the end of the next optimizer step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "launcher"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))
from harm import FAULTS, HEAD_LOST, Fault, NothingThere
from rig import Outcome, Rig, Trial, difference, rig, say

ROOM_STEPS = 12  # a fault strikes only where as many are left
COLUMNS = (
    "fault",
    "host",
    "survived",
    "seconds to the next step",
    "steps replayed",
    "losses equal",
)
OTHERS = ("three", "elastic", "head")  # in runs of their own
ELASTIC = 1e-5  # largest relative difference of a loss: sums of another group in another order


@dataclass
class Row:
    """`difference`: of its losses, the largest relative one to the undisturbed run's."""

    fault: str
    host: str = ""
    survived: bool = False
    seconds: float | None = None
    replayed: int | None = None
    difference: float | None = None
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        equal = "" if self.difference is None else "yes" if self.difference == 0 else "no"
        if self.difference:
            equal = f"within {self.difference:.1e}"
        note = f": {self.note}" if self.note else ""
        return (
            self.fault,
            self.host,
            ("yes" if self.survived else "no") + note,
            "" if self.seconds is None else f"{self.seconds:.1f}",
            "" if self.replayed is None else str(self.replayed),
            equal,
        )


class Bench:
    def __init__(self, rig: Rig, arguments: argparse.Namespace) -> None:
        self.rig, self.arguments = rig, arguments
        self.every = arguments.checkpoint_steps
        self.rows: list[Row] = []
        self.checks: list[str] = []
        self.unequal = 0  # runs that differ from the undisturbed one by more than they may
        self.calm: dict[int, float] = {}
        self.weights: list[dict[str, str]] = []
        self.numbers = itertools.count(1)
        self.hosts = itertools.cycle(rig.lab.hosts)

    def run(self, names: list[str]) -> None:
        self.reference()
        self.one_by_one([fault for name, fault in FAULTS.items() if name in names])
        if "three" in names:
            self.three_kills()
        if "elastic" in names:
            self.elastic()
        if "head" in names:
            self.one_by_one([HEAD_LOST])

    def begin(self, *settings: str) -> Trial:
        trial = Trial(self.rig, f"run-{next(self.numbers)}")
        a = self.arguments
        quiet = ("evaluation.every_steps=1000000", "evaluation.tokens=8192")
        saves = (f"checkpoint.every_steps={self.every}", "checkpoint.every_minutes=null")
        sets = [word for each in (*quiet, *saves, *settings, *a.set) for word in ("--set", each)]
        data = ("--data", a.data) if a.data else ()
        trial.begin(a.recipe, "--steps", str(a.steps), *data, *sets)
        return trial

    def reference(self) -> None:
        trial = self.begin()
        self.finish(trial, "undisturbed")
        self.calm, self.weights = trial.losses(), trial.weights(self.arguments.steps)
        one, two = self.weights
        if len(self.calm) < self.arguments.steps or not one or one != two:
            raise SystemExit("the undisturbed run has not come to its end")

    def finish(self, trial: Trial, what: str, *, tolerance: float = 0.0) -> None:
        """Wait for the last step and compare. `tolerance`: of losses; 0: weights too are equal."""
        trial.wait_for(trial.ended, 6.0 * self.arguments.steps + self.arguments.limit)
        if self.calm:
            self.unequal += not self.compare(trial, what, tolerance)

    def compare(self, trial: Trial, what: str, tolerance: float) -> bool:
        losses, steps = trial.losses(), self.arguments.steps
        worst = difference(losses, self.calm)
        same = trial.weights(steps) == self.weights
        self.checks.append(
            f"{trial.name} ({what}): {len(losses)} of {steps} steps, "
            f"largest relative difference of a loss {worst}, weights and optimizer of both hosts "
            f"at step {steps} {'bit-equal' if same else 'NOT equal'}"
        )
        say(self.checks[-1])
        near = worst is not None and worst <= tolerance
        return len(losses) == steps and near and (same or tolerance > 0)

    def strike(self, trial: Trial, fault: Fault) -> Row:
        """Halfway between two checkpoints, with one behind."""
        host = next(self.hosts) if fault.anywhere else self.rig.two
        if fault is HEAD_LOST:
            host = self.rig.one
        row = Row(fault.what, host.name)
        half = self.every // 2

        def halfway() -> bool:
            return trial.reached() >= self.every and trial.reached() % self.every == half

        if not trial.wait_for(halfway, 120):
            row.note = f"the run stands at step {trial.reached()}"
            return row
        say(f"{fault.what}, on {host.name}, at step {trial.reached()} of {trial.name}")
        try:
            at = fault.last(host, trial.on(host))
        except (NothingThere, RuntimeError) as nothing:  # or what it takes to undo it failed
            row.note = f"could not strike: {nothing}"
            return row
        self.note(row, trial, trial.outcome(at, self.arguments.limit))
        return row

    def note(self, row: Row, trial: Trial, outcome: Outcome) -> None:
        row.survived = outcome.survived
        if outcome.survived:
            row.seconds, row.replayed = outcome.seconds, outcome.replayed
            first, last = outcome.steps
            made = {s: loss for s, loss in trial.losses().items() if first <= s <= last}
            row.difference = difference(made, self.calm)
        say(" | ".join(row.cells()))

    def one_by_one(self, faults: list[Fault]) -> None:
        """In as few runs as they need. One that did not survive is left behind."""
        trial: Trial | None = None
        for fault in faults:
            if trial is not None and trial.reached() > self.arguments.steps - ROOM_STEPS:
                self.finish(trial, "faults above")
                trial = None
            trial = trial or self.begin()
            self.rows.append(self.strike(trial, fault))
            if not self.rows[-1].survived:
                say(f"{trial.name} is given up: mending")
                self.rig.mend()
                trial = None
        if trial is not None:
            self.finish(trial, "faults above")

    def three_kills(self) -> None:
        """The same run, after kills at random steps, on random hosts."""
        chance = random.Random(self.arguments.seed)
        steps = sorted(chance.sample(range(3, self.arguments.steps - ROOM_STEPS), 3))
        row = Row(f"three workers killed, at the random steps {', '.join(map(str, steps))}")
        trial = self.begin()
        seconds, replayed = [], 0
        for step in steps:
            trial.wait_for(lambda step=step: trial.reached() >= step, 300)
            host = chance.choice(self.rig.lab.hosts)
            row.host += f" {host.name}"
            try:
                at = FAULTS["kill"].last(host, trial.on(host))
            except NothingThere as nothing:
                row.note = f"could not strike: {nothing}"
                break
            outcome = trial.outcome(at, self.arguments.limit)
            say(f"killed on {host.name} at step {step}: {outcome}")
            if not outcome.survived:
                break
            seconds.append(outcome.seconds or 0.0)
            replayed += outcome.replayed
        else:
            row.survived = True
            row.seconds, row.replayed = sorted(seconds)[1], replayed
            row.note = "seconds: the median"
        self.finish(trial, row.fault)
        row.difference = difference(trial.losses(), self.calm)
        self.rows.append(row)

    def elastic(self) -> None:
        """A silent host: the survivor goes on alone, and takes it back when it is there again."""
        row = Row("elastic: the cable out until the other goes on alone", self.rig.two.name)
        back = Row("elastic: and in again", self.rig.two.name)
        self.rows += [row, back]
        try:
            trial = self.begin("elastic=true")
        except RuntimeError as refused:
            row.note = back.note = str(refused).strip().splitlines()[0]
            return
        trial.wait_for(lambda: trial.reached() >= self.every * 3 // 2, 180)
        with FAULTS["cable-60"].strike(self.rig.two, trial.on(self.rig.two)) as at:
            self.note(row, trial, trial.outcome(at, self.arguments.limit))
        plugged = time.time()
        attempt = trial.attempt()
        trial.wait_for(lambda: trial.attempt() > attempt, self.arguments.limit)
        self.note(back, trial, trial.outcome(plugged, self.arguments.limit))
        back.survived = trial.attempt() > attempt
        self.finish(trial, "elastic", tolerance=ELASTIC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="d4")
    parser.add_argument("--data", help="as of `launch recipe` (default: the recipe's)")
    parser.add_argument("--set", action="append", default=[], help="as of `launch recipe`")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--checkpoint-steps", type=int, default=10)
    parser.add_argument("--limit", type=float, default=180, help="seconds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--only", help="of: " + ", ".join((*FAULTS, *OTHERS)))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    known = [*FAULTS, *OTHERS]
    names = arguments.only.split(",") if arguments.only else known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(known)}")
    with rig() as made:
        bench = Bench(made, arguments)
        try:
            bench.run(names)
        finally:  # also what there is of it
            report(bench, arguments)
    sys.exit(bool(bench.unequal) or not all(row.survived for row in bench.rows))


def report(bench: Bench, arguments: argparse.Namespace) -> None:
    if arguments.json:
        document: dict[str, Any] = {
            "seed": arguments.seed,
            "rows": [vars(row) for row in bench.rows],
            "runs": bench.checks,
        }
        print(json.dumps(document, indent=1))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row in bench.rows:
        print(f"| {' | '.join(row.cells())} |")
    print(f"\nseed {arguments.seed}")
    print(*bench.checks, sep="\n")


if __name__ == "__main__":
    main()
