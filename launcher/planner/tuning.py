"""What a measurement decides for a run, where recipe and cluster file leave it open.

Settled when the run is made and kept in its run.json: a resumed run computes as it began, whatever
has been measured since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from launcher.config.recipe import Recipe
from launcher.planner.measurement import HostSpeed, Measurement
from launcher.planner.step_time import token_seconds, update_seconds
from nanochat.batch_split import MICRO_BATCH_TOKENS, largest_micro_batch, split_rows
from nanochat.sizes import ModelConfig

TUNING_KEY = "chosen"  # the key of run.json
SHARE_DIGITS = 3


@dataclass(frozen=True)
class Place:
    """A node of the run, "" this machine. `slots`: ranks that it takes; `cpus`: that each of them
    may use, None: all; `share`: as the cluster file writes it."""

    name: str
    slots: int = 1
    cpus: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Tuning:
    """By node; empty where nothing is measured or somebody has written it. `cpus`: what threads are
    pinned to; `shares`: their mean is 1; `micro_batch`: in rows. `reasons`: for people, by what
    was chosen."""

    threads: Mapping[str, int] = field(default_factory=dict)
    cpus: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    micro_batch: int | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Tuning:
        """Of a run.json."""
        return cls(**spec.get(TUNING_KEY, {}))

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def tune(
    recipe: Recipe,
    measured: Measurement | None,
    places: Sequence[Place],
    *,
    device: str,
    torch_version: str | None,
) -> Tuning:
    """`places`: in rank order. `device`: cpu or cuda. `torch_version`: that
    the run will have."""
    if measured is None or device != measured.device:
        return Tuning()
    date = f"measured {measured.day}"
    hosts = {
        place.name: measured.hosts[place.name] for place in places if place.name in measured.hosts
    }
    reasons: dict[str, str] = {}
    threads, cpus = _threads(measured, hosts, places, date, reasons)
    shares: dict[str, float] = {}
    if len(places) > 1 and all(place.share is None for place in places):
        shares = _shares(recipe, measured, places, date, reasons)
    micro_batch = None
    if recipe.micro_batch is None and len(hosts) == len(places):
        micro_batch = _micro_batch(recipe, measured, places, shares, date, reasons)
    theirs = measured.versions.get("torch", "").partition("+")[0]
    if reasons and torch_version not in (None, theirs):
        reasons["measured"] = (
            f"with torch {theirs}, this is {torch_version}: `launch measure` again would tell"
        )
    return Tuning(threads, cpus, shares, micro_batch, reasons)


# --- threads


def _threads(
    measured: Measurement,
    hosts: Mapping[str, HostSpeed],
    places: Sequence[Place],
    date: str,
    reasons: dict[str, str],
) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Of single ranks that have a CPU to themselves, and what they are pinned to."""
    threads: dict[str, int] = {}
    cpus: dict[str, tuple[int, ...]] = {}
    if measured.device != "cpu":
        return threads, cpus
    words = []
    for place in places:
        speed = hosts.get(place.name)
        if speed is None or place.slots > 1:
            continue
        threads[place.name] = count = min(speed.threads, place.cpus or speed.threads)
        if speed.cpus is not None:
            cpus[place.name] = speed.cpus[:count]
        why = speed.why_threads
        if count < speed.threads:
            why = f"{count}: the cluster file says so ({why})"
        words.append(f"{place.name}: {why}" if place.name else why)
    if words:
        reasons["threads"] = f"{'; '.join(words)}; {date}"
    return threads, cpus


# --- shares


def _shares(
    recipe: Recipe,
    measured: Measurement,
    places: Sequence[Place],
    date: str,
    reasons: dict[str, str],
) -> dict[str, float]:
    """Those with which all hosts are done at once; nothing where that are equal rows."""
    unknown = [place.name for place in places if place.name not in measured.hosts]
    if unknown:
        reasons["shares"] = (
            f"equal: {', '.join(unknown)} not measured yet: `launch measure` would tell"
        )
        return {}
    rows = recipe.rows_per_step
    speeds = [measured.hosts[place.name] for place in places]
    exact = balanced_rows(
        recipe.model, rows, speeds, [place.slots for place in places], measured.dtype
    )
    if exact is None:
        return {}
    mean = sum(exact) / len(exact)
    shares = [float(f"{each / mean:.{SHARE_DIGITS}g}") for each in exact]
    dealt, equal = split_rows(rows, shares), split_rows(rows, [1.0] * len(places))
    if not all(dealt) or [*map(len, dealt)] == [*map(len, equal)]:
        return {}
    each = ", ".join(
        f"{place.name} {len(share)}" for place, share in zip(places, dealt, strict=True)
    )
    rates = ", ".join(
        f"{place.name} {place.slots / token_seconds(recipe.model, speed):,.0f}"
        for place, speed in zip(places, speeds, strict=True)
    )
    reasons["shares"] = (
        f"{each} of the {rows} rows of a step: done at once, with the optimizer; tok/s of each by "
        f"itself: {rates}; {date}"
    )
    return {place.name: share for place, share in zip(places, shares, strict=True)}


def balanced_rows(
    model: ModelConfig,
    rows: int,
    speeds: Sequence[HostSpeed],
    slots: Sequence[int],
    dtype: str,
) -> list[float] | None:
    """Rows of each host, not whole, with which all are done with a step at the same time. None
    where there is not one for each rank.

    A host with k ranks is done after t = rows / k x row + update, the same on all; row and update
    are its seconds for a row and for the optimizer, which takes a slow host longer too: so it gets
    even less than in proportion to its speed, at least one row a rank.
    """
    if rows < sum(slots):
        return None
    row = [token_seconds(model, speed) * model.sequence_length for speed in speeds]
    update = [sum(update_seconds(model, speed, dtype)) for speed in speeds]
    found = [float(count) for count in slots]
    free = set(range(len(speeds)))
    while free:
        left = rows - sum(found[i] for i in range(len(found)) if i not in free)
        per_second = sum(slots[i] / row[i] for i in free)
        done = (left + sum(slots[i] * update[i] / row[i] for i in free)) / per_second
        exact = {i: slots[i] * (done - update[i]) / row[i] for i in free}
        short = {i for i in free if exact[i] < slots[i]}
        if not short:
            for i in free:
                found[i] = exact[i]
            break
        free -= short
    return found


# --- micro-batch


def _micro_batch(
    recipe: Recipe,
    measured: Measurement,
    places: Sequence[Place],
    shares: Mapping[str, float],
    date: str,
    reasons: dict[str, str],
) -> int | None:
    """Rows per pass that suit the rank with the most rows."""
    speeds = [measured.hosts[place.name] for place in places]
    best = [speed.pass_tokens for speed in speeds if speed.pass_tokens is not None]
    if len(best) < len(speeds):
        return None
    tokens, model = min(best), recipe.model
    if model.dim > min(min(speed.widths) for speed in speeds):
        # What is paid once a pass weighs less in a wider model, and a pass takes more memory.
        tokens = min(tokens, MICRO_BATCH_TOKENS[measured.device])
    weights = [shares.get(place.name, place.share or 1.0) for place in places]
    dealt = split_rows(recipe.rows_per_step, weights)
    most = max(-(-len(share) // place.slots) for share, place in zip(dealt, places, strict=True))
    size = largest_micro_batch(most, model.sequence_length, measured.device, tokens)
    reasons["passes"] = (
        f"{size * model.sequence_length:,} tokens each: {tokens:,} are as fast as any; {date}"
    )
    return size
