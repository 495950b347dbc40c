"""Runs. A run is a folder, and the folder is the only truth about it."""
