"""The plan of a run as one JSON object, which `launch plan --json` prints."""

from __future__ import annotations

from typing import Any

from launcher.planner.run_plan import RunPlan
from launcher.planner.verdict import verdict


def plan_as_json(plan: RunPlan) -> dict[str, Any]:
    """Return estimate, verdict and alternatives."""
    estimate = plan.estimate
    full = estimate.full_disks
    return {
        "recipe": plan.name,
        "cluster": estimate.hardware.name,
        **estimate.figures(),
        "hosts": [
            {
                "name": host.name or "local",
                "peak_bytes": host.peak_bytes,
                "available_bytes": host.available_bytes,
                "fits": host.fits,
                "memory": vars(host.peak),
                "disk_free_bytes": machine.disk_free_bytes,
                "disk_fits": None if machine.disk_free_bytes is None else machine not in full,
            }
            for host, machine in zip(estimate.hosts, estimate.hardware.machines, strict=True)
        ],
        "basis": estimate.basis,
        "basis_words": estimate.basis_text,
        "bottleneck": estimate.bottleneck,
        "terms": [term.as_json() for term in estimate.step.terms],
        "verdict": verdict(plan),
        "alternatives": [each.as_json() for each in plan.alternatives],
    }
