"""Where a head of a Neural Turing Machine looks: the four steps from what it emits to a weighting of the memory.

    content (eq. 5, 6) -> interpolate with the last weighting (eq. 7) -> shift (eq. 8) -> sharpen (eq. 9)

of Graves, Wayne & Danihelka 2014, arXiv:1410.5401, each a layer with its own backward, and `Addressing`, all of them in
a row. `apply` and `differentiate` are the mathematics of a layer, without the checks and the stack.

Here B is the batch, H the heads, N the slots of the memory and M the width of one.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from backhand.layers.arguments import positive
from backhand.layers.base import Layer
from backhand.layers.external_memory import outer
from backhand.layers.memory import empty_like
from backhand.layers.parameter import Array
from backhand.layers.softmax import softmax

FLOOR = 1e-12
Step = tuple[Array, tuple[Any, ...]]  # a result, and what its derivative needs


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
        n = _norms(x, self.eps)[..., None]
        y = x / n
        self.save(y, n, out=y)
        return y

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        y, n = self.saved()
        dx: Array = y * -np.einsum("...i,...i", y, dout)[..., None]
        dx += dout
        dx /= n
        return dx


class InverseNorms(Layer):
    """How much every vector has to be scaled to have length 1; of a large memory it spares writing the unit vectors.

        q = 1 / n,    n = sqrt(|x|^2 + eps^2)        dx = -dq q^3 x

    x : (..., M)      q : (...)
    eps : as in UnitVectors
    """

    def __init__(self, eps: float = 1e-4) -> None:
        self.eps = positive(self, "eps", eps)

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x)
        if x.ndim == 0:
            self.reject("x of shape (..., M)", x.shape)
        q = np.asarray(np.reciprocal(_norms(x, self.eps)))
        self.save(x, q, out=q)
        return q

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        x, q = self.saved()
        return np.multiply(x, (q * q * q * -dout)[..., None], out=empty_like(x))


class ContentAddressing(Layer):
    """A weighting of the slots by how much they are like a key.

        w = softmax(strength * z),    z_i = q_i key . memory_i

    is the cosine where the key has length 1 and q_i is 1 / |memory_i|. With dy = softmax'(dw) and dz = strength * dy,

        dstrength = sum_i z_i dy_i        dkey = sum_i dz_i q_i memory_i
        dmemory_i = sum over the heads of dz_i q_i key        dq_i = sum over the heads of dz_i key . memory_i

    key : (B, H, M)      strength : (B, H, 1), positive      memory : (B, N, M)      q : (B, N)      w : (B, H, N)
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, eq. 5 and 6 (with UnitVectors and InverseNorms before it)
    """

    def forward(self, key: ArrayLike, strength: ArrayLike, memory: ArrayLike, q: ArrayLike) -> Array:
        key, strength, memory, q = self.inputs(key, strength, memory, q)
        if key.ndim != 3 or memory.ndim != 3 or key.shape[::2] != memory.shape[::2]:
            self.reject("key (B, H, M) and memory (B, N, M)", f"{key.shape} and {memory.shape}")
        if strength.shape != (*key.shape[:2], 1) or q.shape != memory.shape[:2]:
            wanted = f"strength of shape {(*key.shape[:2], 1)} and q of {memory.shape[:2]}"
            self.reject(wanted, f"{strength.shape} and {q.shape}")
        w, kept = self.apply(key, strength, memory, q)
        self.save(*kept, out=w)
        return w

    def backward(self, dout: Any) -> tuple[Array, ...]:
        return self.differentiate(self.upstream(dout), *self.saved())

    @staticmethod
    def apply(key: Array, strength: Array, memory: Array, q: Array) -> Step:
        products = key @ memory.swapaxes(1, 2)
        scale = q[:, None]
        z = products * scale
        w = softmax(strength * z, -1)
        return w, (key, strength, memory, scale, products, z, w)

    @staticmethod
    def differentiate(
        dw: Array, key: Array, strength: Array, memory: Array, scale: Array, products: Array, z: Array, w: Array
    ) -> tuple[Array, ...]:
        dz = softmax_back(dw, w)
        dstrength = np.einsum("bhn,bhn->bh", dz, z)[..., None]
        dz *= strength
        dq = np.einsum("bhn,bhn->bn", dz, products)
        dz *= scale
        return dz @ memory, dstrength, outer(dz, key), dq


class Interpolation(Layer):
    """A gate between the content and the last weighting.

        w = g content + (1 - g) last
        dg = sum_i dw_i (content_i - last_i),    dcontent = g dw,    dlast = (1 - g) dw

    gate : (B, H, 1), from 0 to 1      content, last, w : (B, H, N)
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, eq. 7
    """

    def forward(self, gate: ArrayLike, content: ArrayLike, last: ArrayLike) -> Array:
        gate, content, last = self.inputs(gate, content, last)
        if content.shape != last.shape or gate.shape != (*content.shape[:-1], 1):
            self.reject("gate (B, H, 1), content and last (B, H, N)", f"{gate.shape}, {content.shape}, {last.shape}")
        w, kept = self.apply(gate, content, last)
        self.save(*kept, out=w)
        return w

    def backward(self, dout: Any) -> tuple[Array, ...]:
        return self.differentiate(self.upstream(dout), *self.saved())

    @staticmethod
    def apply(gate: Array, content: Array, last: Array) -> Step:
        difference = content - last
        w = gate * difference
        w += last
        return w, (gate, difference)

    @staticmethod
    def differentiate(dw: Array, gate: Array, difference: Array) -> tuple[Array, ...]:
        dgate = np.einsum("...n,...n", dw, difference)[..., None]
        dcontent = gate * dw
        return dgate, dcontent, dw - dcontent


class CircularShift(Layer):
    """Move the focus: a circular convolution with a small distribution over shifts.

        y_i = sum_j s_j w_{i - o_j},    o = -k, ..., k      (indices modulo N: the memory is a ring)
        ds_j = sum_i dy_i w_{i - o_j},    dw_i = sum_j s_j dy_{i + o_j}:    the adjoint rolls the other way

    w, y : (B, H, N)      shift : (B, H, 2k + 1), which sums to 1; all on its last entry moves the focus k slots on
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, eq. 8
    """

    def forward(self, w: ArrayLike, shift: ArrayLike) -> Array:
        w, shift = self.inputs(w, shift)
        if w.ndim != 3 or shift.ndim != 3 or shift.shape[:2] != w.shape[:2] or shift.shape[2] % 2 == 0:
            self.reject("w (B, H, N) and shift (B, H, 2k + 1)", f"{w.shape} and {shift.shape}")
        y, kept = self.apply(w, shift)
        self.save(*kept, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, ...]:
        return self.differentiate(self.upstream(dout), *self.saved())

    @staticmethod
    def apply(w: Array, shift: Array) -> Step:
        there, _ = _rolls(w.shape[2], shift.shape[2])
        rolled = w.take(there, axis=2)  # (B, H, 2k + 1, N)
        return (shift[:, :, None] @ rolled)[:, :, 0], (rolled, shift)

    @staticmethod
    def differentiate(dy: Array, rolled: Array, shift: Array) -> tuple[Array, ...]:
        _, back = _rolls(dy.shape[2], shift.shape[2])
        dshift = (rolled @ dy[..., None])[..., 0]
        dw = (shift[:, :, None] @ dy.take(back, axis=2))[:, :, 0]
        return dw, dshift


class Sharpening(Layer):
    """Undo the blur of the shift.

        y = w^gamma / sum_j w_j^gamma = softmax(gamma log w)
        dgamma = sum_i log(w_i) softmax'(dy)_i,    dw = gamma softmax'(dy) / w

    w, y : (B, H, N), weightings      gamma : (B, H, 1), at least 1
    floor : below it a weight counts as this one, in the logarithm: 0 has none, and w^gamma alone would underflow. In
        float16 it is the smallest normal number

    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, eq. 9
    """

    def __init__(self, floor: float = FLOOR) -> None:
        self.floor = positive(self, "floor", floor)

    def forward(self, w: ArrayLike, gamma: ArrayLike) -> Array:
        w, gamma = self.inputs(w, gamma)
        if gamma.shape != (*w.shape[:-1], 1):
            self.reject("w (B, H, N) and gamma (B, H, 1)", f"{w.shape} and {gamma.shape}")
        y, kept = self.apply(w, gamma, self.floor)
        self.save(*kept, out=y)
        return y

    def backward(self, dout: Any) -> tuple[Array, ...]:
        return self.differentiate(self.upstream(dout), *self.saved())

    @staticmethod
    def apply(w: Array, gamma: Array, floor: float = FLOOR) -> Step:
        least = _at_least(floor, w.dtype)
        safe = np.maximum(w, least)
        log = np.log(safe)
        y = softmax(gamma * log, -1)
        return y, (safe, least, log, gamma, y)

    @staticmethod
    def differentiate(dy: Array, safe: Array, least: Any, log: Array, gamma: Array, y: Array) -> tuple[Array, ...]:
        dw = softmax_back(dy, y)
        dgamma = np.einsum("...n,...n", dw, log)[..., None]
        dw *= gamma
        dw /= safe
        dw *= safe > least
        return dw, dgamma


class Addressing(Layer):
    """The four steps in a row: from what a head emits, and where it looked last, to where it looks now.

        w = Sharpening(CircularShift(Interpolation(gate, content, last), shift), gamma)
        content = ContentAddressing(key, strength, memory, q)

    key : (B, H, M), of length 1      strength, gate, gamma : (B, H, 1)      shift : (B, H, 2k + 1)
    last, w : (B, H, N)      memory : (B, N, M)      q : (B, N), 1 over the lengths of its slots

    backward returns the gradients in the order of the arguments: key, strength, gate, shift, gamma, last, memory, q.
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401, section 3.3
    """

    def forward(
        self,
        key: ArrayLike,
        strength: ArrayLike,
        gate: ArrayLike,
        shift: ArrayLike,
        gamma: ArrayLike,
        last: ArrayLike,
        memory: ArrayLike,
        q: ArrayLike,
    ) -> Array:
        given = self.inputs(key, strength, gate, shift, gamma, last, memory, q)
        self._check([x.shape for x in given])
        key, strength, gate, shift, gamma, last, memory, q = given
        # the four, without what each would check and save by itself: an NTM makes this call twice in every step
        content, by_content = ContentAddressing.apply(key, strength, memory, q)
        mixed, by_gate = Interpolation.apply(gate, content, last)
        shifted, by_shift = CircularShift.apply(mixed, shift)
        w, by_gamma = Sharpening.apply(shifted, gamma)
        self.save(by_content, by_gate, by_shift, by_gamma, out=w)
        return w

    def backward(self, dout: Any) -> tuple[Array, ...]:
        dout = self.upstream(dout)
        by_content, by_gate, by_shift, by_gamma = self.saved()
        dshifted, dgamma = Sharpening.differentiate(dout, *by_gamma)
        dmixed, dshift = CircularShift.differentiate(dshifted, *by_shift)
        dgate, dcontent, dlast = Interpolation.differentiate(dmixed, *by_gate)
        dkey, dstrength, dmemory, dq = ContentAddressing.differentiate(dcontent, *by_content)
        return dkey, dstrength, dgate, dshift, dgamma, dlast, dmemory, dq

    def _check(self, shapes: list[tuple[int, ...]]) -> None:
        key, _, _, shift, _, _, memory, _ = shapes
        if len(key) == len(shift) == len(memory) == 3 and shift[2] % 2 == 1:
            moves, one = (*key[:2], shift[2]), (*key[:2], 1)
            wanted = [key, one, one, moves, one, (*key[:2], memory[1]), (key[0], memory[1], key[2]), memory[:2]]
            if shapes == wanted:
                return
        names = ("key", "strength", "gate", "shift", "gamma", "last", "memory", "q")
        others = "strength, gate, gamma (B, H, 1)"
        expected = f"key (B, H, M), {others}, shift (B, H, 2k + 1), last (B, H, N), memory (B, N, M), q (B, N)"
        self.reject(expected, ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True)))


def softmax_back(dw: Array, w: Array) -> Array:
    """The gradient by the scores of w = softmax(scores): w * (dw - sum of dw * w), a new array."""
    dz: Array = dw - np.einsum("...n,...n", dw, w)[..., None]
    dz *= w
    return dz


def _norms(x: Array, eps: float) -> Array:
    """sqrt(|x|^2 + eps^2) over the last axis."""
    n: Array = np.sqrt(np.einsum("...i,...i", x, x) + _at_least(eps**2, x.dtype))
    return n


@functools.lru_cache(maxsize=64)
def _at_least(value: float, dtype: np.dtype[Any]) -> Any:
    """The value in this dtype, or the smallest normal number that it has: 0 would keep nothing from being 0."""
    return dtype.type(max(value, float(np.finfo(dtype).tiny)))


@functools.lru_cache(maxsize=64)
def _rolls(slots: int, shifts: int) -> tuple[Array, Array]:
    """For each offset o (a row) the slots i - o, and the slots i + o."""
    offsets = np.arange(shifts)[:, None] - shifts // 2
    places = np.arange(slots)
    return (places - offsets) % slots, (places + offsets) % slots
