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

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.activations import Tanh, sigmoid, softplus
from backhand.layers.addressing import Addressing, UnitVectors, softmax_back
from backhand.layers.arguments import one_of, refuse, whole, whole_tuple
from backhand.layers.base import Layer, all_or_nothing
from backhand.layers.cells import LSTMCell
from backhand.layers.external_memory import MemoryRead, MemoryWrite
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array, Parameter, float_dtype
from backhand.layers.softmax import softmax

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

    def forward(self, x: ArrayLike) -> tuple[Array, ...]:
        x = self.input(x)
        if x.ndim != 2 or x.shape[1] != self.size:
            self.reject(f"x of shape (B, {self.size})", x.shape)
        linear, squashed, positive, scores = self._quarters(x)
        y = np.empty_like(x)
        out = self._quarters(y)
        out[0][...] = linear
        out[1][...] = sigmoid(squashed)
        out[2][...] = softplus(positive)
        by_offset = scores.reshape(len(x), -1, self.shifts)
        out[3].reshape(by_offset.shape)[...] = softmax(by_offset, -1)
        rises = -np.expm1(-out[2])  # sigmoid(x) = 1 - exp(-softplus(x))
        parts = self._parts(y)
        parts[5] += 1  # gamma, which is at least 1
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

    def _parts(self, x: Array) -> list[Array]:
        """Views of the seven, in their shapes."""
        lasts = (self.width, self.width, self.width, 1, 1, 1, self.shifts)
        parts, start = [], 0
        for size, last in zip(self.sizes, lasts, strict=True):
            parts.append(x[:, start : start + size].reshape(len(x), -1, last))
            start += size
        return parts


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
        self.controller: Layer
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
        self.squash, self.unit_keys, self.unit_slots = Tanh(), UnitVectors(), UnitVectors()
        self.addressing, self.write, self.read_out = Addressing(), MemoryWrite(), MemoryRead()
        self._seen: dict[str, list[Array]] = {}

    @all_or_nothing
    def forward(self, x: ArrayLike) -> Array:
        x = self.input(x, self.output.weight.dtype)
        if x.ndim != 3 or x.shape[2] != self.input_size:
            self.reject(f"x of shape (T, B, {self.input_size})", x.shape)
        steps, batch, _ = x.shape
        w_first = softmax(self.weights.data, -1)
        memory, w, r = (self._for_each(start, batch) for start in (self.memory.data, w_first, self.reads.data))
        state = self._first_state(batch)
        slots = self.unit_slots.forward(memory)
        writers = self.write_heads
        y = np.empty((steps, batch, self.output_size), x.dtype)
        seen: dict[str, list[Array]] = {"w": [], "add": [], "read": []}
        for t in range(steps):
            h, state = self._control(np.concatenate([x[t], r.reshape(batch, -1)], axis=1), state)
            add, key, erase, *looks = self.parameters_of_heads.forward(self.heads.forward(h))
            key = self.unit_keys.forward(key)
            w_write = self._look(key, looks, w, slots, slice(None, writers))
            memory = self.write.forward(memory, w_write, erase, add)
            slots = self.unit_slots.forward(memory)
            w_read = self._look(key, looks, w, slots, slice(writers, None))
            r = self.read_out.forward(w_read, memory)
            w = np.concatenate([w_write, w_read], axis=1)
            y[t] = self.output.forward(np.concatenate([h, r.reshape(batch, -1)], axis=1))
            for name, value in (("w", w), ("add", add), ("read", r)):
                seen[name].append(value)
        self._seen = seen
        self.save(w_first, out=y)
        return y

    def backward(self, dout: Any) -> Array | None:
        dout = self.upstream(dout)
        (w_first,) = self.saved()
        steps, batch, _ = dout.shape
        hidden, writers = self.hidden_size, self.write_heads
        # what is carried from step t + 1 to step t
        dmemory: Any = np.zeros((batch, *self.memory.shape), dout.dtype)
        dslots: Any = np.zeros_like(dmemory)
        dw = np.zeros((batch, *self.weights.shape), dout.dtype)
        dr = np.zeros((batch, *self.reads.shape), dout.dtype)
        dstate = self._last_dstate(batch, dout.dtype)
        dx = np.empty((steps, batch, self.input_size), dout.dtype)
        for t in reversed(range(steps)):
            both = self.output.backward(dout[t])
            dh = both[:, :hidden]
            dr += both[:, hidden:].reshape(dr.shape)
            dw_read, dmemory_read = self.read_out.backward(dr)
            dmemory += dmemory_read
            dw[:, writers:] += dw_read
            dread = self.addressing.backward(dw[:, writers:])
            # the unit slots were looked at by these read heads, and by the write heads of the next step
            dmemory += self.unit_slots.backward(dslots + dread[-1])
            dmemory, dw_write, derase, dadd = self.write.backward(dmemory)
            dw[:, :writers] += dw_write
            *dwrite, dlast, dslots = self.addressing.backward(dw[:, :writers])
            dw = np.concatenate([dlast, dread[-2]], axis=1)
            dkey, dstrength, dgate, dshift, dgamma = (
                np.concatenate(pair, axis=1) for pair in zip(dwrite, dread[:5], strict=True)
            )
            dkey = self.unit_keys.backward(dkey)
            draw = self.parameters_of_heads.backward((dadd, dkey, derase, dgate, dstrength, dgamma, dshift))
            dh = dh + self.heads.backward(draw)
            dseen, dstate = self._control_back(dh, dstate)
            dx[t] = dseen[:, : self.input_size]
            dr = dseen[:, self.input_size :].reshape(dr.shape).copy()
        dmemory += self.unit_slots.backward(dslots)
        self.memory.grad += dmemory.sum(axis=0)
        self.weights.grad += softmax_back(dw.sum(axis=0), w_first)
        self.reads.grad += dr.sum(axis=0)
        self._first_dstate(dstate)
        return dx if self.input_requires_grad else None

    # ------------------------------------------------------------------ the pieces of a step

    def _look(self, key: Array, looks: list[Array], last: Array, slots: Array, heads: slice) -> Array:
        """The weightings of some of the heads."""
        gate, strength, gamma, shift = (each[:, heads] for each in looks)
        return self.addressing.forward(key[:, heads], strength, gate, shift, gamma, last[:, heads], slots)

    def _control(self, seen: Array, state: Any) -> tuple[Array, Any]:
        if self.kind == "lstm":
            state = self.controller.forward(seen, state)
            return state[0], state
        return self.squash.forward(self.controller.forward(seen)), None

    def _control_back(self, dh: Array, dstate: Any) -> tuple[Array, Any]:
        if self.kind == "lstm":
            dseen, dstate = self.controller.backward((dh + dstate[0], dstate[1]))
            return dseen, dstate
        return self.controller.backward(self.squash.backward(dh)), None

    def _first_state(self, batch: int) -> Any:
        if self.kind != "lstm":
            return None
        return tuple(self._for_each(start.data, batch) for start in (self.hidden, self.cell))

    def _last_dstate(self, batch: int, dtype: Any) -> Any:
        zero = np.zeros((batch, self.hidden_size), dtype)
        return (zero, zero) if self.kind == "lstm" else None

    def _first_dstate(self, dstate: Any) -> None:
        if self.kind == "lstm":
            self.hidden.grad += dstate[0].sum(axis=0)
            self.cell.grad += dstate[1].sum(axis=0)

    def _for_each(self, start: Array, batch: int) -> Array:
        return np.broadcast_to(start, (batch, *start.shape))

    # ------------------------------------------------------------------ what there is to draw

    @property
    def write_map(self) -> Array:
        """Where the write heads looked in the last forward: (T, B, W, N)."""
        return np.stack(self._seen["w"])[:, :, : self.write_heads]

    @property
    def read_map(self) -> Array:
        """Where the read heads looked in the last forward: (T, B, R, N)."""
        return np.stack(self._seen["w"])[:, :, self.write_heads :]

    @property
    def added(self) -> Array:
        """What the write heads added in the last forward: (T, B, W, M)."""
        return np.stack(self._seen["add"])

    @property
    def read(self) -> Array:
        """What the read heads read in the last forward: (T, B, R, M)."""
        return np.stack(self._seen["read"])

    def __repr__(self) -> str:
        return super().__repr__().replace(f"controller={self.controller!r}", f"controller={self.kind!r}")
