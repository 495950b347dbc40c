"""A run's figures on the head's metrics port, as Prometheus reads them (`ray_launch_loss`, ...)."""

from __future__ import annotations

from ray.util.metrics import Gauge

from launcher.runs.metric import Metric

# Key of a line of metrics.jsonl -> gauge and its description.
GAUGES = {
    "step": ("launch_step", "Optimizer steps completed."),
    "tokens": ("launch_tokens", "Tokens trained on so far."),
    "loss": ("launch_loss", "Mean loss of the step, nats per token."),
    "val_bpb": ("launch_val_bpb", "Bits per byte on the validation text."),
    "step_seconds": ("launch_step_seconds", "Duration of the step."),
    "tokens_per_second": ("launch_tokens_per_second", "Tokens per second of the step."),
    "wire_bytes": ("launch_wire_bytes", "Bytes that rank 0 sent to other ranks in the step."),
}


class Gauges:
    """Of one run, told apart by the tag `run`."""

    def __init__(self, run: str) -> None:
        self._gauges = {
            key: Gauge(name, description=description, tag_keys=("run",))
            for key, (name, description) in GAUGES.items()
        }
        for gauge in self._gauges.values():
            gauge.set_default_tags({"run": run})

    def update(self, metric: Metric) -> None:
        """Set the figures of one step; those that it lacks keep their last value."""
        for key, gauge in self._gauges.items():
            value = getattr(metric, key)
            if value is not None:
                gauge.set(value)
