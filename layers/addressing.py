"""Where a head of a Neural Turing Machine looks: the four steps from what it emits to a weighting of the memory.

    content (eq. 5, 6) -> interpolate with the last weighting (eq. 7) -> shift (eq. 8) -> sharpen (eq. 9)

of Graves, Wayne & Danihelka 2014, arXiv:1410.5401, each a layer with its own backward, and `Addressing`, all of them in
a row. Here B is the batch, H the heads, N the slots of the memory and M the width of one.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import positive
from backhand.layers.base import Layer, all_or_nothing
from backhand.layers.external_memory import outer
from backhand.layers.memory import empty_like
from backhand.layers.parameter import Array
from backhand.layers.softmax import softmax


class UnitVectors(Layer):
    """Scale every vector to length 1.

        y = x / n,    n = sqrt(|x|^2 + eps^2)
        dx = (dout - y (y . dout)) / n:    what points along y changes only the length, which is taken out again

    x, y : (..., M)
    eps : keeps n from 0, and smooth; it belongs to the model: vectors that are much shorter than eps stay short
    """

    def __init__(self, eps: float = 1e-4) -> None:
        self.eps = positive(self, "eps", eps)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        if x.ndim == 0:
            self.reject("x of shape (..., M)", x.shape)
        n = np.einsum("...i,...i", x, x)[..., None]
        n += x.dtype.type(self.eps**2)
        np.sqrt(n, out=n)
        y = np.divide(x, n, out=empty_like(x))
        self.save(y, n, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        y, n = self.saved()
        dx = np.multiply(y, -np.einsum("...i,...i", y, dout)[..., None], out=empty_like(y))
        dx += dout
        dx /= n
        return dx


class ContentAddressing(Layer):
    """A weighting of the slots by how much they are like a key.

        w = softmax(strength * z),    z_i = key . memory_i,    the cosine where both are unit vectors
        dz = strength * softmax'(dw),    dstrength = sum_i z_i softmax'(dw)_i
        dkey = sum_i dz_i memory_i,      dmemory_i = sum over the heads of dz_i key

    key : (B, H, M)      strength : (B, H, 1), positive      memory : (B, N, M)      w : (B, H, N)
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, eq. 5 and 6 (with UnitVectors before it)
    """

    def forward(self, key: ArrayLike, strength: ArrayLike, memory: ArrayLike) -> Array:
        key, strength, memory = self.input(key), self.input(strength), self.input(memory)
        if key.ndim != 3 or memory.ndim != 3 or key.shape[::2] != memory.shape[::2]:
            self.reject("key (B, H, M) and memory (B, N, M)", f"{key.shape} and {memory.shape}")
        if strength.shape != (*key.shape[:2], 1):
            self.reject(f"strength of shape {(*key.shape[:2], 1)}", strength.shape)
        z = key @ memory.swapaxes(1, 2)
        w = softmax(strength * z, -1)
        self.save(key, strength, memory, z, w, out=w)
        return w

    def backward(self, dout: Any) -> tuple[Array, Array, Array]:
        dout = self.upstream(dout)
        key, strength, memory, z, w = self.saved()
        dz = softmax_back(dout, w)
        dstrength = np.einsum("bhn,bhn->bh", dz, z)[..., None]
        dz *= strength
        return dz @ memory, dstrength, outer(dz, key)


class Interpolation(Layer):
    """A gate between the content and the last weighting.

        w = g content + (1 - g) last
        dg = sum_i dw_i (content_i - last_i),    dcontent = g dw,    dlast = (1 - g) dw

    gate : (B, H, 1), from 0 to 1      content, last, w : (B, H, N)
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, eq. 7
    """

    def forward(self, gate: ArrayLike, content: ArrayLike, last: ArrayLike) -> Array:
        gate, content, last = self.input(gate), self.input(content), self.input(last)
        if content.shape != last.shape or gate.shape != (*content.shape[:-1], 1):
            self.reject("gate (B, H, 1), content and last (B, H, N)", f"{gate.shape}, {content.shape}, {last.shape}")
        difference = content - last
        w = gate * difference
        w += last
        self.save(gate, difference, out=w)
        return w

    def backward(self, dout: Any) -> tuple[Array, Array, Array]:
        dout = self.upstream(dout)
        gate, difference = self.saved()
        dgate = np.einsum("...n,...n", dout, difference)[..., None]
        dcontent = gate * dout
        return dgate, dcontent, dout - dcontent


class CircularShift(Layer):
    """Move the focus: a circular convolution with a small distribution over shifts.

        y_i = sum_j s_j w_{i - o_j},    o = -k, ..., k      (indices modulo N: the memory is a ring)
        ds_j = sum_i dy_i w_{i - o_j},    dw_i = sum_j s_j dy_{i + o_j}:    the adjoint rolls the other way

    w, y : (B, H, N)      shift : (B, H, 2k + 1), which sums to 1; all on its last entry moves the focus k slots on
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, eq. 8
    """

    def forward(self, w: ArrayLike, shift: ArrayLike) -> Array:
        w, shift = self.input(w), self.input(shift)
        if w.ndim != 3 or shift.ndim != 3 or shift.shape[:2] != w.shape[:2] or shift.shape[2] % 2 == 0:
            self.reject("w (B, H, N) and shift (B, H, 2k + 1)", f"{w.shape} and {shift.shape}")
        there, _ = _rolls(w.shape[2], shift.shape[2])
        rolled = w.take(there, axis=2)  # (B, H, 2k + 1, N)
        y = (shift[:, :, None] @ rolled)[:, :, 0]
        self.save(rolled, shift, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, Array]:
        dout = self.upstream(dout)
        rolled, shift = self.saved()
        _, back = _rolls(dout.shape[2], shift.shape[2])
        dshift = (rolled @ dout[..., None])[..., 0]
        dw = (shift[:, :, None] @ dout.take(back, axis=2))[:, :, 0]
        return dw, dshift


class Sharpening(Layer):
    """Undo the blur of the shift.

        y = w^gamma / sum_j w_j^gamma = softmax(gamma log w)
        dgamma = sum_i log(w_i) softmax'(dy)_i,    dw = gamma softmax'(dy) / w

    w, y : (B, H, N), weightings      gamma : (B, H, 1), at least 1
    floor : below it a weight counts as this one, in the logarithm: 0 has none, and w^gamma alone would underflow

    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, eq. 9
    """

    def __init__(self, floor: float = 1e-12) -> None:
        self.floor = positive(self, "floor", floor)

    def forward(self, w: ArrayLike, gamma: ArrayLike) -> Array:
        w, gamma = self.input(w), self.input(gamma)
        if gamma.shape != (*w.shape[:-1], 1):
            self.reject("w (B, H, N) and gamma (B, H, 1)", f"{w.shape} and {gamma.shape}")
        safe = np.maximum(w, w.dtype.type(self.floor))
        log = np.log(safe)
        y = softmax(gamma * log, -1)
        self.save(safe, log, gamma, y, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, Array]:
        dout = self.upstream(dout)
        safe, log, gamma, y = self.saved()
        dz = softmax_back(dout, y)
        dgamma = np.einsum("...n,...n", dz, log)[..., None]
        dz *= gamma
        dz /= safe
        dz *= safe > self.floor
        return dz, dgamma


class Addressing(Layer):
    """The four steps in a row: from what a head emits, and where it looked last, to where it looks now.

        w = Sharpening(CircularShift(Interpolation(gate, ContentAddressing(key, strength, memory), last), shift), gamma)

    key : (B, H, M)      strength, gate, gamma : (B, H, 1)      shift : (B, H, 2k + 1)      last, w : (B, H, N)
    memory : (B, N, M), its rows unit vectors, as the keys are

    backward returns the gradients in the order of the arguments: key, strength, gate, shift, gamma, last, memory.
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, section 3.3
    """

    def __init__(self) -> None:
        self.content = ContentAddressing()
        self.interpolation = Interpolation()
        self.shift = CircularShift()
        self.sharpening = Sharpening()

    @all_or_nothing
    def forward(
        self,
        key: ArrayLike,
        strength: ArrayLike,
        gate: ArrayLike,
        shift: ArrayLike,
        gamma: ArrayLike,
        last: ArrayLike,
        memory: ArrayLike,
    ) -> Array:
        content = self.content.forward(key, strength, memory)
        mixed = self.interpolation.forward(gate, content, last)
        return self.sharpening.forward(self.shift.forward(mixed, shift), gamma)

    def backward(self, dout: Any) -> tuple[Array, ...]:
        dshifted, dgamma = self.sharpening.backward(dout)
        dmixed, dshift = self.shift.backward(dshifted)
        dgate, dcontent, dlast = self.interpolation.backward(dmixed)
        dkey, dstrength, dmemory = self.content.backward(dcontent)
        return dkey, dstrength, dgate, dshift, dgamma, dlast, dmemory


def softmax_back(dw: Array, w: Array) -> Array:
    """The gradient by the scores of w = softmax(scores): w * (dw - sum of dw * w), a new array."""
    dz: Array = dw - np.einsum("...n,...n", dw, w)[..., None]
    dz *= w
    return dz


@functools.lru_cache(maxsize=64)
def _rolls(slots: int, shifts: int) -> tuple[Array, Array]:
    """For each offset o (a row) the slots i - o, and the slots i + o."""
    offsets = np.arange(shifts)[:, None] - shifts // 2
    places = np.arange(slots)
    return (places - offsets) % slots, (places + offsets) % slots
