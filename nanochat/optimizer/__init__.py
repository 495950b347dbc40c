"""Muon for the matrices, AdamW for the rest, and the schedules that drive both."""

from nanochat.optimizer.muon_adamw import MuonAdamW
from nanochat.optimizer.schedule import Schedule

__all__ = ["MuonAdamW", "Schedule"]
