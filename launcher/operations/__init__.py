"""Use cases that a program can call. Nothing here prints: callers pass what shows messages."""
