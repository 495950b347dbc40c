"""Tuning: the settings that a measurement chooses for a run if recipe and cluster file do not.

They are chosen when the run is created and kept in its run.json: a resumed run computes as it
started, whatever has been measured since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from launcher.config.cluster import LOCAL
from launcher.config.loaded_cluster import LoadedCluster
from launcher.config.recipe import Recipe
from launcher.planner.hardware import local_hardware
from launcher.planner.measurement import HostSpeed, Measurement, load_measurement
from launcher.planner.step_time import token_seconds, update_seconds
from launcher.provision.requirements import pinned_version
from launcher.runs.node import RunNode
from launcher.runs.spec import RunSpec, Tuning
from nanochat.batch_split import MICRO_BATCH_TOKENS, largest_micro_batch, split_rows
from nanochat.sizes import ModelConfig

SHARE_DIGITS = 3


def tune_local_run(recipe: Recipe) -> Tuning:
    """Tune a run on this machine."""
    machine = local_hardware(load_measurement(LOCAL), recipe.workers).machines[0]
    node = machine.node.model_copy(update={"cpus": None})  # no file limits what was measured
    return _tune_run(recipe, LOCAL, [node], {}, device=machine.device)


def tune_cluster_run(recipe: Recipe, loaded: LoadedCluster, nodes: Sequence[RunNode]) -> Tuning:
    """Tune a run on a cluster's nodes."""
    device = "cpu" if {node.accelerator for node in nodes} == {"cpu"} else "cuda"
    return _tune_run(recipe, loaded.cluster.name, nodes, loaded.explicit_shares, device=device)


def _tune_run(
    recipe: Recipe,
    cluster: str,
    nodes: Sequence[RunNode],
    explicit_shares: Mapping[str, float],
    *,
    device: str,
) -> Tuning:
    measurement, version = load_measurement(cluster), pinned_version("torch")
    return tune(recipe, measurement, nodes, explicit_shares, device=device, torch_version=version)


def apply_tuning(spec: RunSpec, tuning: Tuning) -> RunSpec:
    """Return the spec of a new run with its tuning."""
    if not tuning.reasons:
        return spec
    settings = dict(spec.settings)
    if tuning.micro_batch is not None:
        settings["micro_batch"] = tuning.micro_batch
    return spec.with_changes(settings=settings, tuning=tuning)


def tune(
    recipe: Recipe,
    measurement: Measurement | None,
    nodes: Sequence[RunNode],
    explicit_shares: Mapping[str, float],
    *,
    device: str,
    torch_version: str | None,
) -> Tuning:
    """Choose the settings of a run.

    `nodes`: in rank order; `explicit_shares`: node -> what the cluster file states; `device`: cpu
    or cuda; `torch_version`: the one that the run will have.
    """
    if measurement is None or device != measurement.device:
        return Tuning()
    date = f"measured {measurement.day}"
    reasons: dict[str, str] = {}
    threads, cpus = _tune_threads(measurement, nodes, date, reasons)
    shares: dict[str, float] = {}
    if len(nodes) > 1 and not any(node.name in explicit_shares for node in nodes):
        shares = _tune_shares(recipe, measurement, nodes, date, reasons)
    micro_batch = None
    if recipe.micro_batch is None and all(node.name in measurement.hosts for node in nodes):
        weights = [shares.get(node.name, node.share) for node in nodes]
        micro_batch = _tune_micro_batch(recipe, measurement, nodes, weights, date, reasons)
    measured_version = measurement.versions.get("torch", "").partition("+")[0]
    if reasons and torch_version not in (None, measured_version):
        reasons["measured"] = (
            f"with torch {measured_version}, this is {torch_version}: "
            "`launch measure` again would tell"
        )
    return Tuning(
        threads=threads, cpus=cpus, shares=shares, micro_batch=micro_batch, reasons=reasons
    )


# --- threads


def _tune_threads(
    measurement: Measurement,
    nodes: Sequence[RunNode],
    date: str,
    reasons: dict[str, str],
) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Return the threads of each rank that has a host to itself, and the CPUs that they are pinned
    to."""
    threads: dict[str, int] = {}
    cpus: dict[str, tuple[int, ...]] = {}
    if measurement.device != "cpu":
        return threads, cpus
    host_reasons = []
    for node in nodes:
        speed = measurement.hosts.get(node.name)
        if speed is None or node.ranks_per_node > 1:
            continue
        threads[node.name] = count = min(speed.threads, node.cpus or speed.threads)
        if speed.cpus is not None:
            cpus[node.name] = speed.cpus[:count]
        why = speed.why_threads
        if count < speed.threads:
            why = f"{count}: the cluster file says so ({why})"
        host_reasons.append(f"{node.name}: {why}" if node.name else why)
    if host_reasons:
        reasons["threads"] = f"{'; '.join(host_reasons)}; {date}"
    return threads, cpus


# --- shares


def _tune_shares(
    recipe: Recipe,
    measurement: Measurement,
    nodes: Sequence[RunNode],
    date: str,
    reasons: dict[str, str],
) -> dict[str, float]:
    """Return the shares with which all hosts finish a step at the same time; none if that means
    equal rows."""
    unknown = [node.name for node in nodes if node.name not in measurement.hosts]
    if unknown:
        reasons["shares"] = (
            f"equal: {', '.join(unknown)} not measured yet: `launch measure` would tell"
        )
        return {}
    rows = recipe.rows_per_step
    speeds = [measurement.hosts[node.name] for node in nodes]
    exact = balanced_rows(
        recipe.model, rows, speeds, [node.ranks_per_node for node in nodes], measurement.dtype
    )
    if exact is None:
        return {}
    mean = sum(exact) / len(exact)
    shares = [float(f"{count / mean:.{SHARE_DIGITS}g}") for count in exact]
    split, equal = split_rows(rows, shares), split_rows(rows, [1.0] * len(nodes))
    if not all(split) or [*map(len, split)] == [*map(len, equal)]:
        return {}
    counts = ", ".join(f"{node.name} {len(part)}" for node, part in zip(nodes, split, strict=True))
    rates = ", ".join(
        f"{node.name} {node.ranks_per_node / token_seconds(recipe.model, speed):,.0f}"
        for node, speed in zip(nodes, speeds, strict=True)
    )
    reasons["shares"] = (
        f"{counts} of the {rows} rows of a step: done at once, with the optimizer; "
        f"tok/s of each by itself: {rates}; {date}"
    )
    return {node.name: share for node, share in zip(nodes, shares, strict=True)}


def balanced_rows(
    model: ModelConfig,
    rows: int,
    speeds: Sequence[HostSpeed],
    ranks: Sequence[int],
    dtype: str,
) -> list[float] | None:
    """Return the rows of each host, as fractions, with which all finish a step at the same time.
    None if there are fewer rows than ranks.

    A host with k ranks finishes after t = rows / k x row + update seconds, the same on all hosts.
    Row and update are its seconds for a row and for the optimizer. The optimizer takes a slow host
    longer too, so it gets even less than in proportion to its speed, but at least one row per rank.
    """
    if rows < sum(ranks):
        return None
    row = [token_seconds(model, speed) * model.sequence_length for speed in speeds]
    update = [sum(update_seconds(model, speed, dtype)) for speed in speeds]
    found = [float(count) for count in ranks]
    free = set(range(len(speeds)))
    while free:
        left = rows - sum(found[i] for i in range(len(found)) if i not in free)
        per_second = sum(ranks[i] / row[i] for i in free)
        finish = (left + sum(ranks[i] * update[i] / row[i] for i in free)) / per_second
        exact = {i: ranks[i] * (finish - update[i]) / row[i] for i in free}
        short = {i for i in free if exact[i] < ranks[i]}
        if not short:
            for i in free:
                found[i] = exact[i]
            break
        free -= short
    return found


# --- micro-batch


def _tune_micro_batch(
    recipe: Recipe,
    measurement: Measurement,
    nodes: Sequence[RunNode],
    weights: Sequence[float],
    date: str,
    reasons: dict[str, str],
) -> int | None:
    """Return the rows per pass that suit the rank with the most rows. `weights`: of each node."""
    speeds = [measurement.hosts[node.name] for node in nodes]
    best = [speed.pass_tokens for speed in speeds if speed.pass_tokens is not None]
    if len(best) < len(speeds):
        return None
    tokens, model = min(best), recipe.model
    if model.dim > min(min(speed.widths) for speed in speeds):
        # The fixed cost of a pass weighs less in a wider model, and a pass takes more memory.
        tokens = min(tokens, MICRO_BATCH_TOKENS[measurement.device])
    split = split_rows(recipe.rows_per_step, weights)
    max_rows = max(
        -(-len(part) // node.ranks_per_node) for part, node in zip(split, nodes, strict=True)
    )
    size = largest_micro_batch(max_rows, model.sequence_length, measurement.device, tokens)
    reasons["passes"] = (
        f"{size * model.sequence_length:,} tokens each: {tokens:,} are as fast as any; {date}"
    )
    return size
