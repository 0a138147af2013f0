"""Published figures, met again: one script for each, run as `python -m benchmarks.reproduce.NAME --data-dir DIR`."""
