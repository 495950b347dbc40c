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
from launcher.training.all_reduce_speed import measure_link
from launcher.training.host_speed import default_models, measure_host
from launcher.training.threads import use_threads

# What the slowest host may take longer than the others, which wait for it.
HOST_TIMEOUT_SECONDS = 1800.0


class Benchmark:
    """One rank's part of the benchmark.

    `node_names`: the node of each rank, in rank order; "" is this machine. `notify`: shows a
    message, on rank 0 only.
    """

    def __init__(
        self,
        folder: RunFolder,
        spec: RunSpec,
        node_names: Sequence[str],
        *,
        rank: int,
        device: torch.device,
        notify: Callable[[str], None],
    ) -> None:
        self._folder = folder
        assert spec.benchmark is not None and spec.dtype is not None
        self._spec = spec
        self._models, self._dtype = spec.benchmark.models, spec.dtype
        self._node_names = node_names
        self._rank = rank
        self._device = device
        self._notify = notify
        self._gather_group = None
        if len(node_names) > 1:
            self._gather_group = dist.new_group(timeout=timedelta(seconds=HOST_TIMEOUT_SECONDS))

    def run(self) -> None:
        """On all ranks. Raises OSError where a host has no room on its disk."""
        measurement = self._gather(self._previous_measurement())[0]
        if measurement is None:
            measurement = self._measure()
        speed = measurement.hosts[self._node_names[self._rank]]
        if self._device.type == "cpu":
            use_threads(speed.threads, speed.cpus)

    def _previous_measurement(self) -> Measurement | None:
        """Return what an earlier group of this run has measured."""
        file = self._folder.measurement_file
        if self._rank or not file.exists():
            return None
        return Measurement.model_validate_json(file.read_bytes())

    def _measure(self) -> Measurement:
        leaders = {name: self._node_names.index(name) for name in dict.fromkeys(self._node_names)}
        if len(leaders) > 1:
            self._notify(f"each of {', '.join(leaders)} by itself, about a minute")
        own = self._measure_host() if self._rank in leaders.values() else None
        speeds = self._gather(own)
        hosts = {name: speeds[rank] for name, rank in leaders.items()}
        for name, speed in hosts.items():
            if name and name != self._node_names[0]:
                self._notify(f"{name}: threads {speed.why_threads}")
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
            write_json(self._folder.measurement_file, measurement.model_dump(mode="json"))
        return measurement

    def _measure_host(self) -> HostSpeed:
        models = list(self._models) or default_models(self._device)
        name = self._node_names[self._rank]
        self._folder.checkpoints.mkdir(exist_ok=True)
        return measure_host(
            models,
            device=self._device,
            dtype=getattr(torch, self._dtype),
            folder=self._folder.checkpoints,
            max_threads=int(os.environ["OMP_NUM_THREADS"]) if name else self._spec.threads[""],
            notify=lambda message: self._notify(f"{name}: {message}" if name else message),
        )

    def _measure_links(self, leaders: dict[str, int]) -> dict[str, LinkSpeed]:
        """Two after the other, while the others wait."""
        links: dict[str, LinkSpeed] = {}
        for first, second in itertools.combinations(leaders, 2):
            ranks = [leaders[first], leaders[second]]
            group = dist.new_group(ranks)
            own = measure_link(group, self._device) if self._rank in ranks else None
            link = self._gather(own)[leaders[first]]
            links[f"{first} {second}"] = link
            if self._rank in ranks:
                dist.destroy_process_group(group)
            self._notify(
                f"{first} - {second}: {link.bytes_per_second * 8 / 1e6:,.0f} Mbit/s, a sum takes "
                f"{link.latency_seconds * 1e3:.2g} ms at least"
            )
        return links

    def _gather(self, own: Any) -> list[Any]:
        """Return the values of all ranks, on every rank."""
        if len(self._node_names) == 1:
            return [own]
        values: list[Any] = [None] * len(self._node_names)
        dist.all_gather_object(values, own, group=self._gather_group)
        return values
