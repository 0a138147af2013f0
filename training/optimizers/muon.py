"""Steps that are orthogonal matrices."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from backhand.layers.parameter import Array, Parameter
from backhand.training.optimizers.base import Optimizer, are_numbers
from backhand.training.optimizers.blocks import Block, lerp


class Muon(Optimizer):
    """Momentum, of which each matrix is made nearly orthogonal: all its directions are stepped along alike.

        b_t = momentum b_{t-1} + (1 - momentum) g,    B = b_t,    or with nesterov   (1 - momentum) g + momentum b_t
        w = (1 - lr weight_decay) w - lr c O,    O = orthogonalize(B)

    params : matrices, the weights of hidden layers; another optimizer takes the vectors, Embedding and the last layer
    ns_coefficients, ns_steps, eps : those of `orthogonalize`
    adjust_lr_fn : c = sqrt(max(1, rows / columns)) for None and "original", 0.2 sqrt(max(rows, columns)) for
        "match_rms_adamw", which makes steps of the size of AdamW's, so that its lr and weight_decay fit
    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; Liu et al. 2025, arXiv:2502.16982
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            weight_decay=weight_decay,
            momentum=momentum,
            nesterov=nesterov,
            ns_coefficients=ns_coefficients,
            eps=eps,
            ns_steps=ns_steps,
            adjust_lr_fn=adjust_lr_fn,
        )

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        for p in group["params"]:
            if p.data.ndim != 2:
                self._fail(f"expected matrices, got a Parameter of shape {p.shape}; give it to another optimizer")
        if not are_numbers(group["ns_coefficients"], 3):
            self._fail(f"expected ns_coefficients to be three numbers, got {group['ns_coefficients']!r}")
        steps = group["ns_steps"]
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 0 <= steps < 100:
            self._fail(f"expected ns_steps to be an integer from 0 to 99, got {steps!r}")
        if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            self._fail(f"expected adjust_lr_fn to be 'original' or 'match_rms_adamw', got {group['adjust_lr_fn']!r}")

    def update(self, group: dict[str, Any], block: Block) -> None:
        lr, momentum = float(group["lr"]), float(group["momentum"])
        keep = 1 - lr * float(group["weight_decay"])

        def move(w: Array, g: Array, average: Array, a: Array, b: Array) -> None:
            lerp(average, g, 1 - momentum, a)

        block.each(move, "momentum_buffer")
        for w, g, average in block.matrices("momentum_buffer"):
            step = g + momentum * (average - g) if group["nesterov"] else average
            step = orthogonalize(step, group["ns_coefficients"], group["ns_steps"], group["eps"])
            rows, columns = w.shape
            if group["adjust_lr_fn"] == "match_rms_adamw":
                size = lr * 0.2 * math.sqrt(max(rows, columns))
            else:
                size = lr * math.sqrt(max(1, rows / columns))
            w *= keep
            w -= size * step.astype(w.dtype, copy=False)


def orthogonalize(matrix: Array, coefficients: tuple[float, float, float], steps: int, eps: float) -> Array:
    """A matrix with the same singular vectors, and all singular values near 1, by Newton and Schulz's iteration.

        X = matrix / max(|matrix|, eps),    then so many times   A = X X^T,   X = a X + (b A + c A A) X

    With X = U S V^T that is U (a S + b S^3 + c S^5) V^T: a polynomial of the singular values alone. The usual
    coefficients take any S in (0, 1] to about 0.7 to 1.2 in 5 steps, which is as good as 1 here.
    In bfloat16, as torch does it and Jordan et al. 2024: each product is rounded to 8 bits.
    """
    a, b, c = map(float, coefficients)
    x = bfloat16(matrix)
    tall = x.shape[0] > x.shape[1]  # X X^T is then the larger one of the two products
    if tall:
        x = x.T
    norm = bfloat16(np.sqrt(np.square(x).sum()))
    x = bfloat16(x / np.maximum(norm, bfloat16(np.asarray(eps))))
    for _ in range(steps):
        gram = bfloat16(x @ x.T)
        x = bfloat16(a * x + bfloat16(b * gram + c * (gram @ gram)) @ x)
    return x.T if tall else x


def bfloat16(x: Array) -> Array:
    """x rounded to the nearest bfloat16 (the upper half of a float32), in float32; NumPy has no such dtype."""
    rounded = np.array(x, np.float32, order="C")
    bits = rounded.view(np.uint32)
    bits += np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))  # ties go to the even one
    bits &= np.uint32(0xFFFF0000)
    np.copyto(rounded, np.nan, where=np.isnan(x))
    return rounded
