"""Whole training steps of the same model with the same weights, in backhand and in PyTorch, timed in turn.

Run it from the repository root: `python -m benchmarks --list`, `python -m benchmarks --workload digits-mlp`.
"""
