"""A memory beside the network: reading from it and writing to it where a weighting points.

B is the batch, H the heads, N the slots of the memory and M the width of one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.base import Layer
from backhand.layers.memory import empty, empty_like
from backhand.layers.parameter import Array


class MemoryRead(Layer):
    """The mean of the slots under a weighting.

        r = sum_i w_i memory_i        dw_i = memory_i . dr,    dmemory_i = sum over the heads of w_i dr

    w : (B, H, N)      memory : (B, N, M)      r : (B, H, M)
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, eq. 2
    """

    def forward(self, w: ArrayLike, memory: ArrayLike) -> Array:
        w, memory = self.inputs(w, memory)
        if w.ndim != 3 or memory.ndim != 3 or (w.shape[0], w.shape[2]) != memory.shape[:2]:
            self.reject("w (B, H, N) and memory (B, N, M)", f"{w.shape} and {memory.shape}")
        r = w @ memory
        self.save(w, memory, out=r)
        return r

    def backward(self, dout: Any) -> tuple[Array, Array]:
        dout = self.upstream(dout)
        w, memory = self.saved()
        return dout @ memory.swapaxes(1, 2), outer(w, dout)


class MemoryWrite(Layer):
    """Erase, then add, where the weightings point.

        new_i = memory_i * prod_h (1 - w_hi e_h) + sum_h w_hi a_h        (products of vectors are entry by entry)

        da_h = sum_i w_hi dnew_i        dmemory_i = dnew_i * prod_h (1 - w_hi e_h)
        de_h = -sum_i w_hi G_hi         dw_hi = dnew_i . a_h - G_hi . e_h
            G_hi = dnew_i * memory_i * (the product over all heads but h)

    memory, new : (B, N, M)      w : (B, H, N)      erase, from 0 to 1, and add : (B, H, M)

    All heads erase before any adds, so their order does not matter. The product without one head is made of the
    products before and after it: dividing the whole product by a factor fails where that is 0.
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, eq. 3 and 4
    """

    def forward(self, memory: ArrayLike, w: ArrayLike, erase: ArrayLike, add: ArrayLike) -> Array:
        memory, w, erase, add = self.inputs(memory, w, erase, add)
        if memory.ndim != 3 or w.ndim != 3 or (w.shape[0], w.shape[2]) != memory.shape[:2]:
            self.reject("memory (B, N, M) and w (B, H, N)", f"{memory.shape} and {w.shape}")
        wanted = (*w.shape[:2], memory.shape[2])
        if erase.shape != wanted or add.shape != wanted:
            self.reject(f"erase and add of shape {wanted}", f"{erase.shape} and {add.shape}")
        left = [outer(w[:, h : h + 1], erase[:, h : h + 1]) for h in range(w.shape[1])]  # of each head (B, N, M)
        for each in left:
            np.subtract(1, each, out=each)
        kept = _product(left)
        new = np.multiply(memory, kept, out=empty_like(kept))
        new += outer(w, add)
        self.save(memory, w, erase, add, left, kept, out=new)
        return new

    def backward(self, dout: Any) -> tuple[Array, Array, Array, Array]:
        dout = self.upstream(dout)
        memory, w, erase, add, left, kept = self.saved()
        dadd = w @ dout
        dw = add @ dout.swapaxes(1, 2)
        derase = np.empty_like(dadd)
        for h in range(len(left)):
            others = _product(left[:h] + left[h + 1 :])
            g = np.multiply(dout, memory, out=empty_like(dout))
            if others is not None:
                g *= others
            dw[:, h] -= (g @ erase[:, h, :, None])[..., 0]
            derase[:, h] = -(w[:, h, None] @ g)[:, 0]
        return np.multiply(dout, kept, out=empty_like(dout)), dw, derase, dadd


def outer(w: Array, v: Array) -> Array:
    """The sum over the heads of w_h v_h^T: (B, H, N) and (B, H, M) give (B, N, M)."""
    if w.shape[1] > 1:
        return w.swapaxes(1, 2) @ v
    # matmul takes several times as long where there is nothing to sum up
    return np.multiply(w.swapaxes(1, 2), v, out=empty((len(w), w.shape[2], v.shape[2]), v.dtype))


def _product(arrays: list[Array]) -> Any:
    """The product of them all; None of none."""
    if not arrays:
        return None
    total = arrays[0]
    for array in arrays[1:]:
        total = total * array
    return total
