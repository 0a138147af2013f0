"""The sign of the gradient alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from backhand.layers.parameter import Array, Parameter
from backhand.training.optimizers.base import Optimizer, are_numbers
from backhand.training.optimizers.blocks import Block


class Rprop(Optimizer):
    """Step by the sign of the gradient, longer while the sign stays, shorter when it turns.

        s_t = s_{t-1} etas[1] where g g_{t-1} > 0,    s_{t-1} etas[0] where g g_{t-1} < 0,    held within step_sizes
        g = 0 where the sign has turned: that step is left out, and the next one counts as neither
        w = w - s_t sign(g)

    lr : s_0. It is for gradients of the whole data: those of small batches turn their signs by chance
    etas : (shrink, grow)        step_sizes : (smallest, largest)
    Riedmiller & Braun 1993, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm"
    """

    def __init__(
        self,
        params: Iterable[Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr=lr, etas=etas, step_sizes=step_sizes, maximize=maximize)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        etas, sizes = group["etas"], group["step_sizes"]
        if not are_numbers(etas, 2) or not 0 < etas[0] < 1 < etas[1]:
            self._fail(f"expected etas to be one number in (0, 1) and one above 1, got {etas!r}")
        if not are_numbers(sizes, 2) or not 0 <= sizes[0] <= sizes[1]:
            self._fail(f"expected step_sizes to be the smallest and the largest step, got {sizes!r}")

    def update(self, group: dict[str, Any], block: Block) -> None:
        shorter, longer = map(float, group["etas"])
        smallest, largest = map(float, group["step_sizes"])
        block.count()
        block.begin("step_size", float(group["lr"]))

        def move(w: Array, g: Array, last: Array, size: Array, a: Array, b: Array) -> None:
            np.multiply(g, -1 if group["maximize"] else 1, out=b)
            np.multiply(b, last, out=a)
            turned = a < 0
            np.multiply(size, longer, out=size, where=a > 0)
            np.multiply(size, shorter, out=size, where=turned)
            np.clip(size, smallest, largest, out=size)
            b[turned] = 0
            last[...] = b
            np.sign(b, out=b)
            b *= size
            w -= b

        block.each(move, "prev", "step_size")
