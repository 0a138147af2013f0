"""What weights of architectures start from, where it is not the layers' own default."""

from __future__ import annotations

import numpy as np

from backhand.layers.parameter import Parameter


def kaiming_normal(parameter: Parameter, rng: np.random.Generator, mode: str = "fan_out") -> None:
    """Draw the weight (out, in / groups, *kernel) from N(0, 2 / fan): ReLUs then keep the variance.

    mode : "fan_out", out times the kernel, keeps that of the gradients; "fan_in" that of the values
    He, Zhang, Ren & Sun 2015, arXiv:1502.01852
    """
    fan = np.prod(parameter.shape) // parameter.shape[1 if mode == "fan_out" else 0]
    normal(parameter, rng, float(np.sqrt(2 / fan)))


def normal(parameter: Parameter, rng: np.random.Generator, std: float) -> None:
    """Draw from N(0, std^2)."""
    parameter.data[...] = std * rng.standard_normal(parameter.shape, np.float32)


def zero(*parameters: Parameter | None) -> None:
    """Let them be 0."""
    for parameter in parameters:
        if parameter is not None:
            parameter.data[...] = 0
