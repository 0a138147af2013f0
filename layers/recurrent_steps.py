"""The loop over the steps, there and back, of the three kinds of recurrent net.

Every step waits for the one before it, so what counts here is how many calls of NumPy a step makes, and that each works
on one run of memory. Whatever does not wait is done for many steps at once, before the loop or after it.
"""

from __future__ import annotations

import numpy as np

from backhand.layers.arguments import one_of
from backhand.layers.memory import empty, empty_like
from backhand.layers.packing import Packing
from backhand.layers.parameter import Array
from backhand.layers.recurrence import Kept, Recurrence, States, Weights
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
                slopes = self.slopes(own, c[piece.before], c[piece.after])
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
    def slopes(gates: Array, c_before: Array, c: Array) -> Array:
        """s_i, s_f, s_g, s_o, s_c, one after the other, of the gates i, f, o, g and the states around the step."""
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
