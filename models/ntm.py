"""The Neural Turing Machine: a controller with a memory beside it, differentiable from end to end.

One time step, for a batch of B sequences, N slots of width M, R read heads and W write heads:

    h_t = controller([x_t, r_{t-1}])                     a tanh layer, or an LSTM
    everything that the heads do = heads(h_t)            one Linear, then HeadParameters
    w_t of the write heads                               Addressing, against the memory before the write
    memory_t = erase and add                             MemoryWrite
    w_t of the read heads                                Addressing, against the memory just written
    r_t = MemoryRead
    y_t = output([h_t, r_t])

The backward visits the same layers in reverse, once for each step: what they saved is on their stacks. Three gradients
are carried from step to step beside the controller's own: by the memory, by the weightings, by what was read.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.addressing import Addressing, InverseNorms, UnitVectors, softmax_back
from backhand.layers.arguments import one_of, refuse, whole, whole_tuple
from backhand.layers.base import Layer
from backhand.layers.cells import LSTMCell
from backhand.layers.external_memory import MemoryRead, MemoryWrite
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array, Parameter, float_dtype
from backhand.layers.softmax import softmax
from backhand.models.ntm_steps import LSTM, FeedForward, FeedForwardBack, LinearBack, LinearSteps, LSTMBack

CONTROLLERS = ("feedforward", "lstm")


class HeadParameters(Layer):
    """What the heads emit, cut out of one vector and brought into range.

        key, add: as they are      erase, gate: sigmoid      strength: softplus      gamma: 1 + softplus
        shift: softmax over the offsets

    x : (B, size), in the order add, key | erase, gate | strength, gamma | shift, in each the heads one after the other
    Returns add, key, erase, gate, strength, gamma, shift: add and erase (B, W, M) of the write heads alone, key
    (B, W + R, M), gate, strength and gamma (B, W + R, 1), shift (B, W + R, shifts); write heads come first.
    The derivatives: sigmoid' = y (1 - y), softplus' = sigmoid.
    """

    def __init__(self, width: int, read_heads: int, write_heads: int, shifts: int = 3) -> None:
        self.width = whole(self, "width", width)
        self.read_heads = whole(self, "read_heads", read_heads)
        self.write_heads = whole(self, "write_heads", write_heads)
        self.shifts = whole(self, "shifts", shifts)
        heads = read_heads + write_heads
        self.sizes = (write_heads * width, heads * width, write_heads * width, heads, heads, heads, heads * shifts)
        self.size = sum(self.sizes)
        ends = itertools.accumulate(self.sizes)
        lasts = (width, width, width, 1, 1, 1, shifts)
        self._columns = [
            (slice(end - size, end), last) for end, size, last in zip(ends, self.sizes, lasts, strict=True)
        ]

    def forward(self, x: ArrayLike) -> tuple[Array, ...]:
        x = self.input(x)
        if x.ndim != 2 or x.shape[1] != self.size:
            self.reject(f"x of shape (B, {self.size})", x.shape)
        y = x.copy()
        _, squashed, positive, scores = self._quarters(y)
        squashed *= 0.5  # sigmoid(x) = (1 + tanh(x/2)) / 2
        np.tanh(squashed, out=squashed)
        squashed += 1
        squashed *= 0.5
        np.logaddexp(positive, 0, out=positive)  # softplus
        rises = -np.expm1(-positive)  # its derivative: sigmoid(x) = 1 - exp(-softplus(x))
        by_offset = scores.reshape(len(x), -1, self.shifts)
        scores[...] = softmax(by_offset, -1).reshape(scores.shape)
        parts = self.cut(y)
        gamma = parts[5]  # which is at least 1
        gamma += 1
        self.save(y, rises, out=tuple(parts))
        return tuple(parts)

    def backward(self, dout: Any) -> Array:
        dout = self.upstream(dout)
        y, rises = self.saved()
        dx = np.concatenate([part.reshape(len(y), -1) for part in dout], axis=1)
        _, dsquashed, dpositive, dshift = self._quarters(dx)
        _, squashed, _, shift = self._quarters(y)
        dsquashed *= squashed * (1 - squashed)
        dpositive *= rises
        shape = (len(y), -1, self.shifts)
        dshift.reshape(shape)[...] = softmax_back(dshift.reshape(shape), shift.reshape(shape))
        return dx

    def _quarters(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Views of what is treated alike: add and key, erase and gate, strength and gamma, shift."""
        a, b, c = self.sizes[0] + self.sizes[1], sum(self.sizes[:4]), sum(self.sizes[:6])
        return x[:, :a], x[:, a:b], x[:, b:c], x[:, c:]

    def cut(self, x: Array) -> list[Array]:
        """Views of the seven in an (B, size) array, as they are: of what the heads are told, or of a bias[None]."""
        return [x[:, columns].reshape(len(x), -1, last) for columns, last in self._columns]


class NTM(Layer):
    """A network that learns to use a memory: read it, write it, and find its way about in it.

        (h_t, r_t, memory_t, w_t) from (x_t, h_{t-1}, r_{t-1}, memory_{t-1}, w_{t-1}),    y_t = output([h_t, r_t])

    x : (T, B, input_size)      y : (T, B, output_size)
    hidden_size : of the controller      controller : "feedforward" (one tanh layer) or "lstm"
    memory_size : (N slots, M width)      read_heads, write_heads : how many there are of each
    shifts : 2k + 1 offsets from -k to k by which a head may move in one step

    memory, weights, reads : (N, M), (W + R, N), (R, M); the state before the first step, learned; weights as the logits
        of a softmax. They start from N(0, 0.05^2), N(0, 1) and 0, and the slots differ: a memory whose slots are all
        the same, under the same weights, gets the same gradient in each, and they never come to differ
    controller, heads, output : `.weight` and `.bias` as in Linear (LSTMCell), and with an LSTM hidden, cell : (H,),
        its state before the first step

    After a forward, for drawing: `write_map` (T, B, W, N) and `read_map` (T, B, R, N), where each head looked; `added`
    (T, B, W, M), what was written, and `read` (T, B, R, M).
    Graves, Wayne & Danihelka 2014, arXiv:1410.5401
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        hidden_size: int = 100,
        controller: str = "feedforward",
        memory_size: tuple[int, int] = (128, 20),
        read_heads: int = 1,
        write_heads: int = 1,
        shifts: int = 3,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.input_size = whole(self, "input_size", input_size)
        self.output_size = whole(self, "output_size", output_size)
        self.hidden_size = whole(self, "hidden_size", hidden_size)
        self.kind = one_of(self, "controller", controller, CONTROLLERS)
        self.memory_size = slots, width = whole_tuple(self, "memory_size", memory_size, 2)
        self.read_heads = whole(self, "read_heads", read_heads)
        self.write_heads = whole(self, "write_heads", write_heads)
        self.shifts = whole(self, "shifts", shifts)
        if self.shifts % 2 == 0 or self.shifts > slots:
            refuse(self, f"shifts to be odd and at most {slots}", shifts)
        rng = np.random.default_rng(rng)
        dtype = float_dtype(dtype)
        seen = input_size + read_heads * width
        self.controller: Linear | LSTMCell
        if controller == "lstm":
            self.controller = LSTMCell(seen, hidden_size, rng=rng, dtype=dtype)
            self.hidden, self.cell = (Parameter(np.zeros(hidden_size, dtype)) for _ in range(2))
        else:
            self.controller = Linear(seen, hidden_size, rng=rng, dtype=dtype)
        self.parameters_of_heads = HeadParameters(width, read_heads, write_heads, shifts)
        self.heads = Linear(hidden_size, self.parameters_of_heads.size, rng=rng, dtype=dtype)
        self.output = Linear(hidden_size + read_heads * width, output_size, rng=rng, dtype=dtype)
        self.memory = Parameter((0.05 * rng.standard_normal((slots, width))).astype(dtype))
        self.weights = Parameter(rng.standard_normal((write_heads + read_heads, slots)).astype(dtype))
        self.reads = Parameter(np.zeros((read_heads, width), dtype))
        self.unit_keys, self.inverse_norms = UnitVectors(), InverseNorms()
        self.addressing, self.write, self.read_out = Addressing(), MemoryWrite(), MemoryRead()
        # of the last forward: where the heads looked, what they added, h and r
        self._seen: tuple[Array, Array, Array] | None = None

    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.output.weight.dtype)
        if x.ndim != 3 or x.shape[2] != self.input_size:
            self.reject(f"x of shape (T, B, {self.input_size})", x.shape)
        steps, batch, _ = x.shape
        hidden, writers, width = self.hidden_size, self.write_heads, self.memory_size[1]
        w_first = softmax(self.weights.data, -1)
        memory, w, r = (_for_each(start, batch) for start in (self.memory.data, w_first, self.reads.data))
        told = np.empty((steps, batch, self.output.in_features), x.dtype)  # h_t and r_t
        looked = np.empty((steps, *w.shape), x.dtype)
        added = np.empty((steps, batch, writers, width), x.dtype)
        controller, heads = self._controller_over(x, told[:, :, :hidden]), LinearSteps(self.heads, batch)
        q = self.inverse_norms.forward(memory)
        for t in range(steps):
            h = controller.step(t, r.reshape(batch, -1))
            add, key, erase, *looks = self.parameters_of_heads.forward(heads.step(h))
            key = self.unit_keys.forward(key)
            w_write = self._look(key, looks, w, memory, q, slice(None, writers))
            memory = self.write.forward(memory, w_write, erase, add)
            q = self.inverse_norms.forward(memory)
            w_read = self._look(key, looks, w, memory, q, slice(writers, None))
            r = self.read_out.forward(w_read, memory)
            w = looked[t]
            w[:, :writers], w[:, writers:] = w_write, w_read
            told[t, :, hidden:], added[t] = r.reshape(batch, -1), add
        looked.flags.writeable = told.flags.writeable = added.flags.writeable = False
        y = self.output.forward(told)
        self._seen = looked, added, told
        self.save(w_first, controller.kept, told, out=y)
        return y

    def backward(self, dout: Any) -> Array | None:
        dout = self.upstream(dout)
        w_first, kept, told = self.saved()
        steps, batch, _ = dout.shape
        hidden, writers = self.hidden_size, self.write_heads
        dtold = self.output.backward(dout)
        controller, heads = self._controller_back(kept, told), LinearBack(self.heads, told[:, :, :hidden])
        # what is carried from step t + 1 to step t
        dmemory: Any = np.zeros((batch, *self.memory.shape), dout.dtype)
        dq: Any = np.zeros(dmemory.shape[:2], dout.dtype)
        dw = np.zeros((batch, *self.weights.shape), dout.dtype)
        dr = np.zeros((batch, self.reads.size), dout.dtype)
        for t in reversed(range(steps)):
            dr += dtold[t, :, hidden:]
            dw_read, dmemory_read = self.read_out.backward(dr.reshape(batch, *self.reads.shape))
            dmemory += dmemory_read
            dw[:, writers:] += dw_read
            *dread, dlast_read, dmemory_read, dq_read = self.addressing.backward(dw[:, writers:])
            dmemory += dmemory_read
            dq += dq_read  # these heads looked at the memory that the write heads of the next step looked at
            dmemory += self.inverse_norms.backward(dq)
            dmemory, dw_write, derase, dadd = self.write.backward(dmemory)
            dw[:, :writers] += dw_write
            *dwrite, dlast_write, dmemory_write, dq = self.addressing.backward(dw[:, :writers])
            dmemory += dmemory_write
            dw[:, :writers], dw[:, writers:] = dlast_write, dlast_read
            dkey, dstrength, dgate, dshift, dgamma = (
                np.concatenate(pair, axis=1) for pair in zip(dwrite, dread, strict=True)
            )
            dkey = self.unit_keys.backward(dkey)
            draw = self.parameters_of_heads.backward((dadd, dkey, derase, dgate, dstrength, dgamma, dshift))
            dr = controller.step(t, dtold[t, :, :hidden] + heads.step(t, draw))
        dmemory += self.inverse_norms.backward(dq)
        heads.finish()
        self.memory.grad += dmemory.sum(axis=0)
        self.weights.grad += softmax_back(dw.sum(axis=0), w_first)
        self.reads.grad += dr.sum(axis=0).reshape(self.reads.shape)
        if isinstance(controller, LSTMBack):
            self.hidden.grad += controller.dh.sum(axis=0)
            self.cell.grad += controller.dc.sum(axis=0)
        return controller.finish(self.input_requires_grad)

    def _controller_over(self, x: Array, h: Array) -> FeedForward | LSTM:
        if isinstance(self.controller, LSTMCell):
            return LSTM(self.controller, x, self.reads.size, h, (self.hidden.data, self.cell.data))
        return FeedForward(self.controller, x, self.reads.size, h)

    def _controller_back(self, kept: Any, told: Array) -> FeedForwardBack | LSTMBack:
        if isinstance(self.controller, LSTMCell):
            return LSTMBack(self.controller, kept, self.reads.size)
        return FeedForwardBack(self.controller, kept, told[:, :, : self.hidden_size], self.reads.size)

    def _look(self, key: Array, looks: list[Array], last: Array, memory: Array, q: Array, heads: slice) -> Array:
        """The weightings of some of the heads."""
        gate, strength, gamma, shift = (each[:, heads] for each in looks)
        return self.addressing.forward(key[:, heads], strength, gate, shift, gamma, last[:, heads], memory, q)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_seen": None}  # of one forward, and larger than the model

    # ------------------------------------------------------------------ what there is to draw

    @property
    def write_map(self) -> Array:
        """Where the write heads looked in the last forward: (T, B, W, N)."""
        return self._last[0][:, :, : self.write_heads]

    @property
    def read_map(self) -> Array:
        """Where the read heads looked in the last forward: (T, B, R, N)."""
        return self._last[0][:, :, self.write_heads :]

    @property
    def added(self) -> Array:
        """What the write heads added in the last forward: (T, B, W, M)."""
        return self._last[1]

    @property
    def read(self) -> Array:
        """What the read heads read in the last forward: (T, B, R, M)."""
        told = self._last[2]
        return told[:, :, self.hidden_size :].reshape(*told.shape[:2], *self.reads.shape)

    @property
    def _last(self) -> tuple[Array, Array, Array]:
        if self._seen is None:
            raise RuntimeError(f"{self!r}: there was no forward yet, so there is nothing to see")
        return self._seen

    def __repr__(self) -> str:
        return super().__repr__().replace(f"controller={self.controller!r}", f"controller={self.kind!r}")


def _for_each(start: Array, batch: int) -> Array:
    return np.broadcast_to(start, (batch, *start.shape))
