"""A night in half an hour: d4 on two one-core test hosts and a random fault every two minutes.

    python tests/bench/chaos.py [--minutes 30] [--every 120] [--seed N] [--log chaos.jsonl]

Faults are dealt from a shuffled deck of all (head loss apart): each comes before any comes again.
They come by the clock, whatever the run is doing. Before and after them the same run trains
undisturbed for `--quiet` seconds: that is the rate which goodput is measured against,

    goodput = steps made for the first time / (rate x seconds),

so that time at half speed, steps made again and waiting all count as lost. Then the run is
stopped, and compared with an undisturbed one: losses of all steps, rows and weights of every
checkpoint that both have had. That one is `--reference FOLDER` (a run's folder, of the same recipe,
text and steps) or is trained on the same hosts afterwards, as far as the disturbed one came.

`--log`: what happens as it happens, a JSON object per line.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "launcher"))
sys.path.insert(0, str(Path(__file__).parents[1] / "cluster"))
from harm import FAULTS, Fault, NothingThere
from lab import Host
from pair import CLUSTER
from rig import (
    CheckpointWatch,
    Outcome,
    Rig,
    Trial,
    difference,
    ended_at,
    noted,
    rig,
    say,
    what_became,
)
from running import Run

from launcher.runs.events import RestartEvent, read_events
from launcher.runs.metric import Metric, latest_attempts, read_metrics

GOAL = 0.75
SAME = (
    "depth",
    "sequence_length",
    "vocab_size",
    "tokens_per_step",
    "steps",
    "warmup_steps",
    "seed",
)
FIRST_STEPS = 3  # are slower: not of the quiet time
QUIET_STEPS = 5  # at least
START_SECONDS = 180.0
GIVEN_UP_SECONDS = 300.0  # without a new step: resumed by hand, and counted as not survived


@dataclass
class Strike:
    fault: Fault
    host: Host
    at: float
    note: str = ""
    outcome: Outcome = field(default_factory=lambda: Outcome(survived=False))
    lost: float = 0.0  # seconds until the next one

    def as_json(self) -> dict[str, Any]:
        return {
            "fault": self.fault.name, "host": self.host.name, "at": round(self.at, 3),
            "note": self.note, "lost_seconds": round(self.lost, 1), **vars(self.outcome),
        }  # fmt: skip


class Log:
    def __init__(self, path: Path | None) -> None:
        self._file = path.open("a", buffering=1) if path else None

    def write(self, what: str, **details: Any) -> None:
        say(f"{what}: " + ", ".join(f"{key} {value}" for key, value in details.items()))
        if self._file is not None:
            line = {"time": round(time.time(), 3), "what": what, **details}
            self._file.write(json.dumps(line) + "\n")


class Chaos:
    def __init__(self, rig: Rig, arguments: argparse.Namespace) -> None:
        self.rig, self.arguments = rig, arguments
        self.log = Log(arguments.log)
        self.trial = Trial(rig, "chaos")
        self.watches = [CheckpointWatch(self.trial.on(host).path) for host in rig.lab.hosts]
        self.strikes: list[Strike] = []
        self.resumed: list[float] = []  # when, by hand
        self.quiet: list[tuple[float, float]] = []  # from, to
        self.window = (0.0, 0.0)
        self._over = threading.Event()

    def run(self) -> dict[str, Any]:
        self.log.write("begin", seed=self.arguments.seed, minutes=self.arguments.minutes,
                       every=self.arguments.every)  # fmt: skip
        self.trial.begin(*self.settings())
        watching = threading.Thread(target=self._watch, daemon=True)
        watching.start()
        if not self.trial.wait_for(lambda: self.trial.reached() >= FIRST_STEPS, START_SECONDS):
            raise SystemExit(f"no run began: {self.trial.head.path / 'log.txt'}")
        if self.arguments.reference:
            self._require_same(Run(self.arguments.reference))
        self._be_quiet()
        self._disturb()
        self.trial.wait_for(self._recovered, GIVEN_UP_SECONDS)
        self._be_quiet()
        stopped = self.rig.client.launch("stop", f"{CLUSTER}/chaos", timeout=120)
        self.log.write("stopped", code=stopped.returncode, steps=self.trial.reached())
        self._over.set()
        watching.join()
        found = self.summary()
        self.log.write("summary", **found)
        found |= self.compare()
        self.log.write("compared", **found)
        return found

    def settings(self, *other: str) -> list[str]:
        a = self.arguments
        sets = ["evaluation.every_steps=1000000", "evaluation.tokens=8192",
                "checkpoint.every_minutes=null", f"checkpoint.every_steps={a.checkpoint_steps}",
                *other, *a.set]  # fmt: skip
        words = [word for each in sets for word in ("--set", each)]
        return [a.recipe, "--steps", str(a.steps), *(("--data", a.data) if a.data else ()), *words]

    def _require_same(self, reference: Run) -> None:
        mine, theirs = (
            json.loads((run.path / "run.json").read_text()) for run in (self.trial.head, reference)
        )
        differ = [key for key in SAME if mine["settings"][key] != theirs["settings"][key]]
        if differ or mine["data"]["identity"] != theirs["data"]["identity"]:
            raise SystemExit(f"{reference.path} has other {', '.join(differ) or 'text'}")

    # --- the time of faults

    def _disturb(self) -> None:
        a = self.arguments
        began = time.time()
        self.window = (began, began + 60 * a.minutes)
        for number, (fault, host) in enumerate(self.plan()):
            self._wait_until(began + number * a.every)
            self._strike(fault, host)
        self._wait_until(self.window[1])

    def plan(self) -> list[tuple[Fault, Host]]:
        """From the seed alone."""
        a = self.arguments
        chance = random.Random(a.seed)
        deck: list[Fault] = []
        dealt = []
        for _ in range(int(60 * a.minutes // a.every)):
            if not deck:
                deck = [FAULTS[name] for name in a.faults]
                chance.shuffle(deck)
            fault = deck.pop()
            host = chance.choice(self.rig.lab.hosts) if fault.anywhere else self.rig.two
            dealt.append((fault, host))
        return dealt

    def _strike(self, fault: Fault, host: Host) -> None:
        step = self.trial.reached()
        strike = Strike(fault, host, time.time())
        self.strikes.append(strike)
        try:
            strike.at = fault.last(host, self.trial.on(host))
        except (NothingThere, RuntimeError) as nothing:  # a group that is being built, for one
            strike.note = f"did not strike: {nothing}"
        self.log.write("fault", fault=fault.name, host=host.name, step=step,
                       at=round(strike.at, 3), note=strike.note)  # fmt: skip

    def _wait_until(self, when: float) -> None:
        """And keep the run alive by hand where it has died of what came."""
        while time.time() < when:
            time.sleep(0.2)
            if self.trial.ended() or time.time() - self._newest() > GIVEN_UP_SECONDS:
                self._resume()

    def _newest(self) -> float:
        """When the newest new step was made, or the run was resumed."""
        metrics = latest_attempts(self.trial.metrics())
        return max(ended_at(metrics[-1]), *self.resumed, 0.0)

    def _resume(self) -> None:
        self.resumed.append(time.time())
        self.rig.mend()
        resume = ("resume", f"{CLUSTER}/chaos", "--detach")
        done = self.rig.client.launch(*resume, timeout=300)
        self.log.write("resumed by hand", code=done.returncode, said=done.stderr[-500:])

    def _recovered(self) -> bool:
        """A step has been made since the last fault and its undoing."""
        return ended_at(latest_attempts(self.trial.metrics())[-1]) > self.window[1]

    def _be_quiet(self) -> None:
        began, step = time.time(), self.trial.reached()
        self._wait_until(began + self.arguments.quiet)
        self.trial.wait_for(lambda: self.trial.reached() >= step + QUIET_STEPS, GIVEN_UP_SECONDS)
        self.quiet.append((began, time.time()))

    def _watch(self) -> None:
        """Checkpoints as they come, and progress for who looks on."""
        said = time.time()
        while not self._over.wait(0.5):
            for watch in self.watches:
                watch.look()
            if time.time() - said > 60:
                said = time.time()
                self.log.write("progress", step=self.trial.reached())
        for watch in self.watches:
            watch.look()

    # --- what came of it

    def summary(self) -> dict[str, Any]:
        """Goodput, and where the time went."""
        metrics = self.trial.metrics()
        rate = self._quiet_rate(metrics)
        began, ended = self.window
        useful = _new_steps(metrics, began, ended)
        bounds = [strike.at for strike in self.strikes] + [ended]
        lost: dict[str, float] = defaultdict(float)
        for strike, until in zip(self.strikes, bounds[1:], strict=True):
            made = _new_steps(metrics, strike.at, until)
            strike.lost = until - strike.at - made / rate
            lost[strike.fault.name] += strike.lost
            by_hand = min((at for at in self.resumed if at > strike.at), default=math.inf)
            strike.outcome = what_became(metrics, strike.at, min(until, by_hand))
            if not strike.outcome.survived:  # the next one struck before it had recovered
                strike.outcome = what_became(metrics, strike.at, by_hand)
        replayed = sum(strike.outcome.replayed for strike in self.strikes)
        struck = [strike for strike in self.strikes if not strike.note]
        return {
            "seed": self.arguments.seed,
            "minutes": self.arguments.minutes,
            "faults": len(struck),
            "survived": sum(strike.outcome.survived for strike in struck),
            "resumed_by_hand": len(self.resumed),
            "goodput": round(useful / (rate * (ended - began)), 4),
            "useful_steps": useful,
            "quiet_seconds_per_step": round(1 / rate, 3),
            "replayed_steps": replayed,
            "lost_seconds": {name: round(seconds, 1) for name, seconds in sorted(lost.items())},
            "replay_seconds": round(replayed / rate, 1),
            "recovery_seconds": self._recovery_stages(),
            "strikes": [strike.as_json() for strike in self.strikes],
        }

    def _recovery_stages(self) -> dict[str, float]:
        """Of all restarts, as events.jsonl breaks them down."""
        stages: dict[str, float] = defaultdict(float)
        for event in read_events(self.trial.head.path / "events.jsonl"):
            if isinstance(event, RestartEvent) and event.stage == "step":
                for stage, seconds in event.stages.items():
                    stages[stage] += seconds
        return {stage: round(seconds, 1) for stage, seconds in stages.items()}

    def _quiet_rate(self, metrics: list[Metric]) -> float:
        """Steps per second, evaluation left out and checkpoints not, in the faster of the two
        quiet times: what the last fault still does is no excuse for what came before."""
        rates = []
        for began, ended in self.quiet:
            times = [ended_at(m) for m in metrics if began <= ended_at(m) <= ended]
            if len(times) > 1:
                rates.append((len(times) - 1) / (times[-1] - times[0]))
        if not rates:
            raise SystemExit("no steps in either quiet time: there is no rate to measure against")
        return max(rates)

    def compare(self) -> dict[str, Any]:
        """With an undisturbed run: losses, rows and weights."""
        losses, last = self.trial.losses(), self.trial.reached()
        reference = self.arguments.reference or self._undisturbed(last)
        undisturbed = latest_attempts(read_metrics(reference / "metrics.jsonl"))
        calm = {metric.step: metric.loss for metric in undisturbed}
        theirs = {
            int(path.name.removeprefix("step-")): noted(path)
            for path in reference.glob("checkpoints/step-*")
        }
        pairs = [
            (watch.seen[step], theirs[step])
            for watch in self.watches
            for step in watch.seen.keys() & theirs.keys()
        ]
        both = losses.keys() & calm.keys()
        return {
            "steps": last,
            "every_step_once": sorted(losses) == list(range(1, last + 1)),
            "steps_compared": len(both),
            "steps_bit_equal": sum(losses[step] == calm[step] for step in both),
            "largest_relative_difference": difference(losses, calm),
            "checkpoints_compared": len(pairs),
            "weights_equal": sum(mine[0] == other[0] for mine, other in pairs),
            "rows_equal": sum(mine[1] == other[1] for mine, other in pairs),
        }

    def _undisturbed(self, last: int) -> Path:
        """Trains one as far, with a checkpoint there."""
        self.log.write("undisturbed", until=last)
        calm = Trial(self.rig, "calm")
        calm.begin(*self.settings(f"checkpoint.every_steps={last}", "checkpoint.keep=2"))
        saved = calm.head.path / "checkpoints" / f"step-{last:08d}"
        calm.wait_for(saved.exists, 10.0 * last)
        self.rig.client.launch("stop", f"{CLUSTER}/calm", timeout=120)
        return calm.head.path


def _new_steps(metrics: list[Metric], since: float, until: float) -> int:
    """How many steps were made for the first time in it."""
    before = max((m.step for m in metrics if ended_at(m) <= since), default=0)
    return max(0, max((m.step for m in metrics if ended_at(m) <= until), default=0) - before)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=120, help="seconds between faults")
    parser.add_argument("--quiet", type=float, default=60, help="seconds before and after")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--faults", type=lambda text: text.split(","), default=list(FAULTS))
    parser.add_argument("--recipe", default="d4")
    parser.add_argument("--data", help="as of `launch recipe` (default: the recipe's)")
    parser.add_argument("--set", action="append", default=[], help="as of `launch recipe`")
    parser.add_argument("--steps", type=int, default=2000, help="the horizon: more than are made")
    parser.add_argument("--checkpoint-steps", type=int, default=6)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--log", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.faults if name not in FAULTS]:
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    with rig() as made:
        found = Chaos(made, arguments).run()
    report(found, as_json=arguments.json)
    sys.exit(not good(found))


def good(found: dict[str, Any]) -> bool:
    """Every fault survived without a hand, in time, and nothing that it left behind differs."""
    checkpoints = found["checkpoints_compared"]
    return (
        found["survived"] == found["faults"] > 0
        and not found["resumed_by_hand"]
        and found["goodput"] >= GOAL
        and found["every_step_once"]
        and found["steps_bit_equal"] == found["steps_compared"] == found["steps"] > 0
        and found["weights_equal"] == found["rows_equal"] == checkpoints > 0
    )


def report(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found, indent=1))
        return
    strikes = found.pop("strikes")
    print("| fault | host | survived | seconds to next step | steps replayed | seconds lost |")
    print("|" + "---|" * 6)
    for each in strikes:
        survived = each["note"] or ("yes" if each["survived"] else "no")
        cells = (FAULTS[each["fault"]].what, each["host"], survived, each["seconds"],
                 each["replayed"], each["lost_seconds"])  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |")
    print()
    for key, value in found.items():
        print(f"{key.replace('_', ' ')}: {value}")


if __name__ == "__main__":
    main()
