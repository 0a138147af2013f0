"""Containers, and the named architectures built with them."""

from backhand.models.containers import Concat, Parallel, Repeat, Residual, Sequential, Sum, Unroll

__all__ = ["Concat", "Parallel", "Repeat", "Residual", "Sequential", "Sum", "Unroll"]
