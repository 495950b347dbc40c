"""Making hosts ready: the difference between what they have and what they need."""
