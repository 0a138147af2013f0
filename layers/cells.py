"""One step of a recurrent net: the equations of the three kinds, and the cells made of them.

Each kind's step and step back stand side by side; recurrence.py does the matrix products around them, for a cell (one
step) and for a whole layer (all steps) alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import flag, one_of, whole
from backhand.layers.memory import empty, empty_like
from backhand.layers.packing import Packing
from backhand.layers.parameter import Array, Parameter
from backhand.layers.recurrence import Kept, Recurrence, States, Weights, features
from backhand.layers.thin_product import ThinProduct

# So many numbers of each kind are worked on at a time where a pass follows a pass: what stays in the second cache.
IN_CACHE = 32768


class ElmanStep(Recurrence):
    """h = tanh(a), or relu(a);    da = dh (1 - h^2), or dh where h > 0."""

    nonlinearity: str
    keeps_gates = False  # h tells the derivative

    def set_nonlinearity(self, value: str) -> None:
        """Take 'tanh' or 'relu'."""
        self.nonlinearity = one_of(self, "nonlinearity", value, ("tanh", "relu"))

    def steps(self, a: Array, states: States, packing: Packing, w: Weights) -> None:
        (h,), batch = states, packing.shape[1]
        product = ThinProduct(self.arranged(w.hh.data).swapaxes(1, 2), batch)
        from_h = np.empty((1, batch, self.hidden_size), a.dtype)
        for run in packing.runs:
            p = from_h[0, : run.n]
            into = product.into(from_h[:, : run.n])
            for a_t, h_before, h_t in run.steps(a[0, run.rows], h[run.before], h[run.after]):
                product.times(h_before, product.matrix, into)
                np.add(a_t, p, a_t)
                if self.nonlinearity == "tanh":
                    np.tanh(a_t, h_t)
                else:
                    np.maximum(a_t, 0, out=h_t)

    def steps_back(self, kept: Kept, dy: Array, d: States, packing: Packing, w: Weights) -> tuple[Array, Array]:
        (dh_all,), batch = d, packing.shape[1]
        h = kept.states[0][batch:]
        da = empty_like(h)
        if self.nonlinearity == "tanh":
            np.multiply(h, h, out=da)
            np.subtract(1, da, out=da)
        else:
            da[...] = h > 0
        product = ThinProduct(w.hh.data[None], batch)
        for run in reversed(packing.runs):
            dh = dh_all[: run.n]
            into = product.into(dh[None])
            for da_t, dy_t in run.steps_back(da[run.rows], dy[run.rows]):
                np.add(dh, dy_t, dh)
                np.multiply(da_t, dh, da_t)
                product.times(da_t, product.matrix, into)
        return da, da


class LSTMStep(Recurrence):
    """The four gates, in the order i, f, o, g; see LSTMCell for the equations.

    On the way back all gradients of a step are dh or dc times something that is known before, and so worked out for
    many steps at once:

        da_o = dh s_o        dc += dh s_c        da_i = dc s_i        da_f = dc s_f        da_g = dc s_g        dc *= f
    """

    states = 2
    order = (0, 1, 3, 2)
    sigmoids = 3

    def steps(self, a: Array, states: States, packing: Packing, w: Weights) -> None:
        (h, c), batch = states, packing.shape[1]
        product = ThinProduct(self.arranged(w.hh.data).swapaxes(1, 2), batch)
        times, matrix, add, multiply, tanh = product.times, product.matrix, np.add, np.multiply, np.tanh
        from_h, buffer = np.empty((4, batch, self.hidden_size), a.dtype), np.empty((batch, self.hidden_size), a.dtype)
        half = np.full((), 0.5, a.dtype)
        for run in packing.runs:
            p, t = from_h[:, : run.n], buffer[: run.n]
            into = product.into(p)
            gates = a[:, run.rows]
            around = h[run.before], c[run.before], h[run.after], c[run.after]
            for a_t, ifo, i, f, o, g, h_before, c_before, h_t, c_t in run.steps(gates, gates[:3], *gates, *around):
                times(h_before, matrix, into)
                add(a_t, p, a_t)
                tanh(a_t, a_t)
                multiply(ifo, half, ifo)
                add(ifo, half, ifo)
                multiply(f, c_before, c_t)
                multiply(i, g, t)
                add(c_t, t, c_t)
                tanh(c_t, t)
                if w.hr is None:
                    multiply(o, t, h_t)
                else:
                    multiply(o, t, t)
                    np.matmul(t, w.hr.data.T, h_t)

    def steps_back(self, kept: Kept, dy: Array, d: States, packing: Packing, w: Weights) -> tuple[Array, Array]:
        (dh_all, dc_all), (_, c), gates, (_, batch), size = d, kept.states, kept.gates, packing.shape, self.hidden_size
        assert gates is not None
        product = ThinProduct(w.hh.data[None], batch)
        times, matrix, add, multiply = product.times, product.matrix, np.add, np.multiply
        da = empty((len(dy), 4 * size), dy.dtype)
        projected = w.hr is not None
        dh_kept = empty(dy.shape, dy.dtype) if projected else dy
        unprojected = np.empty_like(dc_all) if projected else dh_all
        for run in reversed(packing.runs):
            dh, dc, dm = dh_all[: run.n], dc_all[: run.n], unprojected[: run.n]
            into = product.into(dh[None])
            for piece in run.pieces(IN_CACHE // size):
                rows, own, da_rows = piece.rows, gates[:, piece.rows], da[piece.rows]
                slopes = self._slopes(own, c[piece.before], c[piece.after])
                by_gate = da_rows.reshape(-1, 4, size).swapaxes(0, 1)
                for da_t, da_ifg, da_o, s_ifg, s_o, s_c, f, dy_t, dh_t in piece.steps_back(
                    da_rows, by_gate[:3], by_gate[3], slopes[:3], *slopes[3:], own[1], dy[rows], dh_kept[rows]
                ):
                    add(dh, dy_t, dh)
                    if w.hr is not None:
                        dh_t[...] = dh
                        np.matmul(dh, w.hr.data, dm)
                    multiply(dm, s_o, da_o)
                    multiply(dm, s_c, s_c)
                    add(dc, s_c, dc)
                    multiply(dc, s_ifg, da_ifg)
                    multiply(dc, f, dc)
                    times(da_t, matrix, into)
        if w.hr is not None:
            w.hr.add_product(dh_kept.T, gates[2] * np.tanh(c[batch:]))
        return da, da

    @staticmethod
    def _slopes(gates: Array, c_before: Array, c: Array) -> Array:
        """s_i, s_f, s_g, s_o, s_c."""
        i, f, o, g = gates
        slopes = empty((5, *c.shape), c.dtype)
        s_i, s_f, s_g, s_o, s_c = slopes
        for s, gate, factor in ((s_i, i, g), (s_f, f, c_before), (s_o, o, np.tanh(c, out=s_c))):
            np.subtract(1, gate, out=s)
            s *= gate
            s *= factor
        for s, t, factor in ((s_g, g, i), (s_c, s_c, o)):
            np.multiply(t, t, out=s)
            np.subtract(1, s, out=s)
            s *= factor
        return slopes


class GRUStep(Recurrence):
    """The gates r, z, n, and behind them q = W_hn h + b_hn; see GRUCell for the equations.

    On the way back all gradients of a step are dh times something that is known before:

        da_n = dh s_n        da_r = dh s_r        da_z = dh s_z        dq = dh s_q        dh_{t-1} = dh z + ...
    """

    order = (0, 1, 2)
    sigmoids = 2
    more = 1

    def steps(self, a: Array, states: States, packing: Packing, w: Weights) -> None:
        (h,), batch = states, packing.shape[1]
        product = ThinProduct(self.arranged(w.hh.data).swapaxes(1, 2), batch)
        from_h, buffer = np.empty((3, batch, self.hidden_size), a.dtype), np.empty((batch, self.hidden_size), a.dtype)
        b_q = 0 if w.b_hh is None else self.arranged(w.b_hh.data)[2, :, 0]
        for run in packing.runs:
            p, t = from_h[:, : run.n], buffer[: run.n]
            into, p_rz, p_q = product.into(p), p[:2], p[2]
            gates = a[:, run.rows]
            for rz, r, z, n, q, h_before, h_t in run.steps(gates[:2], *gates, h[run.before], h[run.after]):
                product.times(h_before, product.matrix, into)
                rz += p_rz
                np.tanh(rz, rz)
                rz *= 0.5
                rz += 0.5
                np.add(p_q, b_q, q)
                np.multiply(r, q, t)
                n += t
                np.tanh(n, n)
                np.subtract(h_before, n, t)  # h = n + z (h_before - n)
                t *= z
                np.add(n, t, h_t)

    def steps_back(self, kept: Kept, dy: Array, d: States, packing: Packing, w: Weights) -> tuple[Array, Array]:
        (dh_all,), (h,), gates, (_, batch), size = d, kept.states, kept.gates, packing.shape, self.hidden_size
        assert gates is not None
        product = ThinProduct(w.hh.data[None], batch)
        da_x, da_h = empty((len(dy), 3 * size), dy.dtype), empty((len(dy), 3 * size), dy.dtype)
        from_a = np.empty_like(dh_all)
        for run in reversed(packing.runs):
            dh, t = dh_all[: run.n], from_a[: run.n]
            into = product.into(t[None])
            for piece in run.pieces(IN_CACHE // size):
                rows, own = piece.rows, gates[:, piece.rows]
                s_n = da_x[rows, 2 * size :]
                slopes = da_h[rows].reshape(-1, 3, size).swapaxes(0, 1)
                self._slopes(own, h[piece.before], s_n, slopes)
                for da_t, s_r, s_z, s_q, s_n_t, z, dy_t in piece.steps_back(da_h[rows], *slopes, s_n, own[1], dy[rows]):
                    dh += dy_t
                    s_r *= dh
                    s_z *= dh
                    s_q *= dh
                    s_n_t *= dh
                    dh *= z
                    product.times(da_t, product.matrix, into)
                    dh += t
        da_x[:, : 2 * size] = da_h[:, : 2 * size]
        return da_x, da_h

    @staticmethod
    def _slopes(gates: Array, h_before: Array, s_n: Array, slopes: Array) -> None:
        """Write s_n, and s_r, s_z, s_q."""
        (r, z, n, q), (s_r, s_z, s_q) = gates, slopes
        kept = np.subtract(1, z)
        np.subtract(h_before, n, out=s_z)
        s_z *= z
        s_z *= kept
        np.multiply(n, n, out=s_n)
        np.subtract(1, s_n, out=s_n)
        s_n *= kept
        np.multiply(s_n, r, out=s_q)
        np.subtract(1, r, out=s_r)
        s_r *= s_q
        s_r *= q


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
        start = tuple(s.reshape(len(rows), self.hidden_size) for s in start)
        kept = self.scan(rows, start, Packing(1, len(rows), None), self.weights())
        after = self.nested([s[len(rows) :].reshape(*x.shape[:-1], -1) for s in kept.states])
        self.save(kept, hx is not None, out=after)
        return after

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        kept, given = self.saved()
        dstates = dout if type(dout) is tuple else (dout,)
        shape = dstates[0].shape
        dend = tuple(d.reshape(-1, self.hidden_size) for d in dstates)
        packing, wants_dx = Packing(1, len(kept.x), None), self.input_requires_grad
        dx, dstart = self.scan_back(kept, np.zeros_like(dend[0]), dend, packing, self.weights(), wants_dx)
        dx = dx if dx is None else dx.reshape(*shape[:-1], self.input_size)
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
