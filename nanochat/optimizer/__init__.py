"""Muon for the matrices, AdamW for the rest, and the schedules that drive both."""
