"""One step of a recurrent net: the equations of the three kinds, and the cells made of them.

Each kind's step and step back stand side by side; recurrence.py does the matrix products around them, for a cell (one
step) and for a whole layer (all steps) alike.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import flag, one_of, whole
from backhand.layers.parameter import Array, Parameter
from backhand.layers.recurrence import Recurrence, States, features


class ElmanStep(Recurrence):
    """h = tanh(a), or relu(a);    da = dh (1 - h^2), or dh where h > 0."""

    nonlinearity: str
    keeps_gates = False  # h tells the derivative

    def set_nonlinearity(self, value: str) -> None:
        """Take 'tanh' or 'relu'."""
        self.nonlinearity = one_of(self, "nonlinearity", value, ("tanh", "relu"))

    def step(self, a: Array, before: States, after: States) -> None:
        if self.nonlinearity == "tanh":
            np.tanh(a, out=after[0])
        else:
            np.maximum(a, 0, out=after[0])

    def step_back(self, a: Array, before: States, after: States, d: list[Array]) -> tuple[Array | None, ...]:
        (h,), (dh,) = after, d
        if self.nonlinearity == "tanh":
            np.multiply(h, h, out=a)
            np.subtract(1, a, out=a)
            a *= dh
        else:
            np.multiply(dh, h > 0, out=a)
        return (None,)


class LSTMStep(Recurrence):
    """The four gates i, f, g, o; see LSTMCell for the equations."""

    states = 2
    blocks = 4
    x_blocks = h_blocks = (0, 4)

    def step(self, a: Array, before: States, after: States) -> None:
        (_, c_before), (h, c) = before, after
        scale, shift, _ = _squashing(self.hidden_size, a.dtype)
        # sigmoid(x) = (tanh(x/2) + 1) / 2, so that one tanh serves all four gates
        a *= scale
        np.tanh(a, out=a)
        a *= scale
        a += shift
        i, f, g, o = _blocks(a, 4)
        np.multiply(f, c_before, out=c)
        c += i * g
        np.tanh(c, out=h)
        h *= o

    def step_back(self, a: Array, before: States, after: States, d: list[Array]) -> tuple[Array | None, ...]:
        (_, c_before), (_, c), (dh, dc) = before, after, d
        i, f, g, o = _blocks(a, 4)
        t = np.tanh(c)  # computed again: cheaper to do than to keep
        da = np.empty_like(a)
        di, df, dg, do = _blocks(da, 4)
        np.multiply(dh, t, out=do)
        t *= t
        np.subtract(1, t, out=t)
        t *= o
        t *= dh
        dc += t
        np.multiply(dc, g, out=di)
        np.multiply(dc, c_before, out=df)
        np.multiply(dc, i, out=dg)
        dc *= f  # now that of the c before
        # the slope of a sigmoid s is (1 - s) s, that of a tanh (1 - s) (1 + s)
        da *= 1 - a
        a += _squashing(self.hidden_size, a.dtype)[2]
        a *= da
        return None, dc

    def unprojected(self, a: Array, states: States) -> Array:
        return a[:, 3 * self.hidden_size :] * np.tanh(states[1])


class GRUStep(Recurrence):
    """The gates r, z, n; see GRUCell for the equations.

    The columns of a are q | r | z | n with q = W_hn h + b_hn, so that x feeds one run of columns (r z n), and h
    another (q r z): each is one matrix product, and so is each weight gradient.
    """

    blocks = 4
    x_blocks, h_blocks = (1, 4), (0, 3)
    h_roll = 1

    def step(self, a: Array, before: States, after: States) -> None:
        (h_before,), (h,) = before, after
        q, r, z, n = _blocks(a, 4)
        gates = a[:, self.hidden_size : 3 * self.hidden_size]  # r and z: sigmoid(x) = (tanh(x/2) + 1) / 2
        gates *= 0.5
        np.tanh(gates, out=gates)
        gates *= 0.5
        gates += 0.5
        n += r * q
        np.tanh(n, out=n)
        np.subtract(h_before, n, out=h)  # h = n + z (h_before - n)
        h *= z
        h += n

    def step_back(self, a: Array, before: States, after: States, d: list[Array]) -> tuple[Array | None, ...]:
        (h_before,), (dh,) = before, d
        q, r, z, n = _blocks(a, 4)
        around = dh * z
        dz = h_before - n
        dz *= around
        dn = dh - around  # dh (1 - z), then the slope of the tanh
        n *= n
        np.subtract(1, n, out=n)
        n *= dn
        z *= -1
        z += 1
        z *= dz  # dh (h_before - n) z (1 - z)
        dr = n * q
        np.multiply(n, r, out=q)
        dr *= 1 - r
        r *= dr
        return (around,)


class Cell(Recurrence):
    """What the three cells share: one step, on weight_ih, weight_hh, bias_ih, bias_hh."""

    weight_ih: Parameter

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.input_size = whole(self, "input_size", input_size)
        self.hidden_size = whole(self, "hidden_size", hidden_size)
        self.bias = flag(self, "bias", bias)
        self.add_weights("", self.input_size, self.bias, np.random.default_rng(rng), dtype)

    def forward(self, x: ArrayLike, hx: Any = None) -> Any:
        x = features(self, x, {2: f"(N, {self.input_size})", 1: f"({self.input_size},)"}, self.weight_ih.dtype)
        start = self.initial(hx, [(*x.shape[:-1], self.hidden_size)] * self.states, x.dtype)
        rows = x.reshape(-1, self.input_size)
        y = np.empty((len(rows), self.hidden_size), x.dtype)
        start = tuple(s.reshape(y.shape) for s in start)
        kept, _ = self.scan(rows, start, [(0, len(rows))], self.weights(), y)
        after = self.nested([s.reshape(*x.shape[:-1], -1) for s in kept.states])
        self.save(kept, hx is not None, out=after)
        return after

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        kept, given = self.saved()
        dstates = dout if type(dout) is tuple else (dout,)
        shape = dstates[0].shape
        dend = tuple(d.reshape(-1, self.hidden_size) for d in dstates)
        dx, dstart = self.scan_back(kept, np.zeros_like(dend[0]), dend, [(0, len(kept.x))], self.weights())
        dx = dx.reshape(*shape[:-1], self.input_size)
        return (dx, self.nested([d.reshape(shape) for d in dstart])) if given else dx


class RNNCell(ElmanStep, Cell):
    """One step of the plain recurrent net: the new state is a layer's output, fed by the input and the old state.

        h' = tanh(a),    a = x W_ih^T + b_ih + h W_hh^T + b_hh
        da = dh' (1 - h'^2)        dx = da W_ih        dh = da W_hh
        dW_ih = da^T x        dW_hh = da^T h        db_ih = db_hh = sum of da over the samples

    with nonlinearity="relu": h' = max(a, 0), da = dh' where h' > 0

    x : (N, input_size), or (input_size,)      hx = h, and h' : (N, hidden_size), or (hidden_size,); None is zeros
    weight_ih : (hidden_size, input_size)      weight_hh : (hidden_size, hidden_size)      biases : (hidden_size,)
    All start from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), as in torch.nn.

    backward gives dx alone when no hx was given, else (dx, dhx).
    Elman 1990, "Finding Structure in Time"
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.set_nonlinearity(nonlinearity)
        super().__init__(input_size, hidden_size, bias, rng=rng, dtype=dtype)


class LSTMCell(LSTMStep, Cell):
    """One step of an LSTM: a memory c that is only added to and scaled, and gates that say how much.

        a = x W_ih^T + b_ih + h W_hh^T + b_hh,    in four blocks: a_i, a_f, a_g, a_o
        i = sigmoid(a_i)    f = sigmoid(a_f)    g = tanh(a_g)    o = sigmoid(a_o)
        c' = f c + i g        h' = o tanh(c')

    Backward, from dh' and dc' (what comes from outside by c'):

        dc' += dh' o (1 - tanh(c')^2)        dc = dc' f
        da_i = dc' g i (1 - i)        da_f = dc' c f (1 - f)
        da_g = dc' i (1 - g^2)        da_o = dh' tanh(c') o (1 - o)
        dx = da W_ih        dh = da W_hh        dW_ih = da^T x        dW_hh = da^T h        db = sum of da

    The way from c' to c is a product with f alone: where f is near 1 the gradient neither fades nor grows.

    x : (N, input_size), or (input_size,)      hx = (h, c), and (h', c') : (N, hidden_size) each; None is zeros
    weight_ih : (4 hidden_size, input_size)      weight_hh : (4 hidden_size, hidden_size)      biases : (4 hidden_size,)
    All start from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), as in torch.nn.

    backward takes (dh', dc') and gives dx alone when no hx was given, else (dx, (dh, dc)).
    Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; with f: Gers, Schmidhuber & Cummins 2000
    """


class GRUCell(GRUStep, Cell):
    """One step of a GRU: the new state lies between the old one and a proposal n.

        r = sigmoid(x W_ir^T + b_ir + h W_hr^T + b_hr)        z = sigmoid(x W_iz^T + b_iz + h W_hz^T + b_hz)
        q = h W_hn^T + b_hn        n = tanh(a_n),    a_n = x W_in^T + b_in + r q
        h' = (1 - z) n + z h

    Backward, da being the gradient by what stands inside a sigmoid or tanh:

        da_n = dh' (1 - z) (1 - n^2)        da_z = dh' (h - n) z (1 - z)
        da_r = da_n q r (1 - r)        dq = da_n r
        dx = [da_r da_z da_n] W_ih        dh = dh' z + [da_r da_z dq] W_hh
        dW_ih = [da_r da_z da_n]^T x        dW_hh = [da_r da_z dq]^T h        db_ih, db_hh: the same columns summed

    x : (N, input_size), or (input_size,)      hx = h, and h' : (N, hidden_size), or (hidden_size,); None is zeros
    weight_ih : (3 hidden_size, input_size), rows r, z, n      weight_hh : (3 hidden_size, hidden_size), likewise
    bias_ih, bias_hh : (3 hidden_size,); b_hn is inside the product with r, so the two do not merge
    All start from U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), as in torch.nn.

    backward gives dx alone when no hx was given, else (dx, dhx).
    Cho et al. 2014, arXiv:1406.1078, with r applied after the product, as in torch and cuDNN
    """


def _blocks(a: Array, n: int) -> list[Array]:
    size = a.shape[1] // n
    return [a[:, k * size : (k + 1) * size] for k in range(n)]


@functools.lru_cache(maxsize=64)
def _squashing(size: int, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """(scale, shift, low) over the columns i, f, g, o: s = scale tanh(scale a) + shift, s' = (1 - s) (s + low)."""
    rows = [(0.5, 0.5, 1, 0.5), (0.5, 0.5, 0, 0.5), (0, 0, 1, 0)]
    scale, shift, low = (np.repeat(np.array(row, dtype), size) for row in rows)
    return scale, shift, low
