"""What a run that measures does before it trains: every host, then every two, by the ranks that
train afterwards. Its steps are the probe, at the threads that were found best."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from launcher.planner.measurement import HostSpeed, LinkSpeed, Measurement
from launcher.runs.folder import RunFolder
from launcher.runs.record import write_json
from launcher.runs.spec import RunSpec
from launcher.training.host_speed import default_models, measure_host
from launcher.training.link_speed import measure_link
from launcher.training.threads import use_threads

# What the slowest host may take longer than the others, which wait for it.
HOST_SECONDS = 1800.0


class Benchmark:
    """Of one rank. `names`: of each rank's node, in rank order, "" on a machine of its own; `say`:
    is heard on rank 0."""

    def __init__(
        self,
        folder: RunFolder,
        spec: RunSpec,
        names: Sequence[str],
        *,
        rank: int,
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self._folder = folder
        assert spec.benchmark is not None and spec.dtype is not None
        self._spec = spec
        self._models, self._dtype = spec.benchmark.models, spec.dtype
        self._names = names
        self._rank = rank
        self._device = device
        self._say = say
        self._patient = None
        if len(names) > 1:
            self._patient = dist.new_group(timeout=timedelta(seconds=HOST_SECONDS))

    def run(self) -> None:
        """On all ranks. Raises OSError where a host has no room on its disk."""
        known = self._gather(self._measured_before())[0]
        if known is None:
            known = self._measure()
        speed = known.hosts[self._names[self._rank]]
        if self._device.type == "cpu":
            use_threads(speed.threads, speed.cpus)

    def _measured_before(self) -> Measurement | None:
        """Where another group had come that far."""
        file = self._folder.measured_file
        if self._rank or not file.exists():
            return None
        return Measurement.model_validate_json(file.read_bytes())

    def _measure(self) -> Measurement:
        leaders = {name: self._names.index(name) for name in dict.fromkeys(self._names)}
        if len(leaders) > 1:
            self._say(f"each of {', '.join(leaders)} by itself, about a minute")
        mine = self._measure_host() if self._rank in leaders.values() else None
        each = self._gather(mine)
        hosts = {name: each[rank] for name, rank in leaders.items()}
        for name, speed in hosts.items():
            if name and name != self._names[0]:
                self._say(f"{name}: threads {speed.why_threads}")
        measurement = Measurement(
            cluster=self._spec.cluster,
            measured_at=time.time(),
            device=self._device.type,
            dtype=self._dtype,
            versions={name: self._spec.versions[name] for name in ("torch", "launch")},
            hosts=hosts,
            links=self._measure_links(leaders),
        )
        if self._rank == 0:
            write_json(self._folder.measured_file, measurement.model_dump(mode="json"))
        return measurement

    def _measure_host(self) -> HostSpeed:
        models = list(self._models) or default_models(self._device)
        name = self._names[self._rank]
        self._folder.checkpoints.mkdir(exist_ok=True)
        return measure_host(
            models,
            device=self._device,
            dtype=getattr(torch, self._dtype),
            folder=self._folder.checkpoints,
            most_threads=int(os.environ["OMP_NUM_THREADS"]) if name else self._spec.threads[""],
            say=lambda words: self._say(f"{name}: {words}" if name else words),
        )

    def _measure_links(self, leaders: dict[str, int]) -> dict[str, LinkSpeed]:
        """Two after the other, while the others wait."""
        links: dict[str, LinkSpeed] = {}
        for (one, first), (other, second) in itertools.combinations(leaders.items(), 2):
            ranks = [first, second]
            group = dist.new_group(ranks)
            found = measure_link(group, self._device) if self._rank in ranks else None
            link = self._gather(found)[first]
            links[f"{one} {other}"] = link
            if self._rank in ranks:
                dist.destroy_process_group(group)
            self._say(
                f"{one} - {other}: {link.bytes_per_second * 8 / 1e6:,.0f} Mbit/s, a sum takes "
                f"{link.latency_seconds * 1e3:.2g} ms at least"
            )
        return links

    def _gather(self, mine: Any) -> list[Any]:
        """Every rank's, on every rank."""
        if len(self._names) == 1:
            return [mine]
        every: list[Any] = [None] * len(self._names)
        dist.all_gather_object(every, mine, group=self._patient)
        return every
