"""The parts of a Neural Turing Machine that have weights, over the steps of one sequence, there and back.

What r_{t-1}, what was read before, gives to a step has to wait for that step. What x gives is one product for all of
them, before the loop; and the gradients of the weights are one product for all of them, after it.

    controller = FeedForward(linear, x, reads, h)         controller = FeedForwardBack(linear, kept, h)
    controller.step(t, r)  writes h[t]         ...        dr = controller.step(t, dh)
    kept = controller.kept                                dx = controller.finish(wants_dx)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backhand.layers.cells import LSTMCell
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array
from backhand.layers.thin_product import ThinProduct


class LinearSteps:
    """A Linear whose input comes a step at a time: y_t = x_t W^T + b.

    linear : W and b      x_t : (B, in_features)      y_t : (B, out_features)
    """

    def __init__(self, linear: Linear, batch: int) -> None:
        self.bias = None if linear.bias is None else linear.bias.data
        self.product = ThinProduct(linear.weight.data.T[None], batch)
        self.shape = (1, batch, linear.out_features)

    def step(self, x: Array) -> Array:
        """y_t, a new array."""
        y = np.empty(self.shape, x.dtype)
        self.product.times(x, self.product.matrix, self.product.into(y))
        if self.bias is not None:
            y += self.bias
        return y[0]


class LinearBack:
    """The way back: dx_t = dy_t W, and in the end dW = sum over t of dy_t^T x_t, db = sum of dy_t.

    x : (T, B, in_features), all the inputs
    """

    def __init__(self, linear: Linear, x: Array) -> None:
        self.linear, self.x = linear, x
        self.dy = np.empty((*x.shape[:2], linear.out_features), x.dtype)

    def step(self, t: int, dy: Array) -> Array:
        """dx_t."""
        self.dy[t] = dy
        dx: Array = dy @ self.linear.weight.data
        return dx

    def finish(self) -> None:
        """Add to the gradients of W and b."""
        _add_gradients(self.linear, self.dy, self.x)


class FeedForward:
    """A tanh layer: h_t = tanh(W [x_t, r_{t-1}] + b).

    linear : W and b      x : (T, B, inputs)      reads : how many numbers r has
    h : (T, B, hidden_size), where the results go
    kept : [x_t, r_{t-1}], (T, B, inputs + reads)
    """

    def __init__(self, linear: Linear, x: Array, reads: int, h: Array) -> None:
        steps, batch, self.inputs = x.shape
        weight = linear.weight.data
        self.h = h
        self.kept = np.empty((steps, batch, self.inputs + reads), x.dtype)
        self.kept[:, :, : self.inputs] = x
        self.from_x = x @ weight[:, : self.inputs].T
        if linear.bias is not None:
            self.from_x += linear.bias.data
        self.product = ThinProduct(weight[:, self.inputs :].T[None], batch)
        self.a = np.empty((1, *h.shape[1:]), x.dtype)
        self.into = self.product.into(self.a)

    def step(self, t: int, r: Array) -> Array:
        """h_t, from r_{t-1} of shape (B, reads)."""
        self.kept[t, :, self.inputs :] = r
        self.product.times(r, self.product.matrix, self.into)
        self.a += self.from_x[t]
        return np.tanh(self.a[0], out=self.h[t])


class FeedForwardBack:
    """The way back: da_t = dh_t (1 - h_t^2), dr_{t-1} = da_t W_r, and in the end dx_t = da_t W_x,

        dW = sum over t of da_t^T [x_t, r_{t-1}]        db = sum of da_t

    seen : what FeedForward kept      h : (T, B, hidden_size)
    """

    def __init__(self, linear: Linear, seen: Array, h: Array, reads: int) -> None:
        self.linear, self.seen = linear, seen
        self.inputs = seen.shape[2] - reads
        self.w_r = linear.weight.data[:, self.inputs :]
        self.da = 1 - h * h  # the slopes, of all the steps

    def step(self, t: int, dh: Array) -> Array:
        """dr_{t-1}, of shape (B, reads)."""
        da = self.da[t]
        da *= dh
        dr: Array = da @ self.w_r
        return dr

    def finish(self, wants_dx: bool) -> Array | None:
        """Add to the gradients of the parameters; dx, where it is wanted."""
        _add_gradients(self.linear, self.da, self.seen)
        return self.da @ self.linear.weight.data[:, : self.inputs] if wants_dx else None


class KeptByLSTM(NamedTuple):
    """What an LSTM needs on its way back.

    x : (T, B, inputs)      seen : [r_{t-1}, h_{t-1}], (T + 1, B, reads + hidden_size)      c : (T + 1, B, hidden_size)
    gates : i, f, o, g, (4, T, B, hidden_size)
    """

    x: Array
    seen: Array
    c: Array
    gates: Array


class LSTM:
    """An LSTM, whose equations stand in LSTMCell; its input is [x_t, r_{t-1}], its state starts from a learned one.

    cell : the weights      x : (T, B, inputs)      reads : how many numbers r has
    h : (T, B, hidden_size), where the results go      start : h and c before the first step, (hidden_size,) each
    """

    def __init__(self, cell: LSTMCell, x: Array, reads: int, h: Array, start: tuple[Array, Array]) -> None:
        (steps, batch, inputs), size = x.shape, cell.hidden_size
        self.h, self.reads = h, reads
        seen = np.empty((steps + 1, batch, reads + size), x.dtype)
        c = np.empty((steps + 1, batch, size), x.dtype)
        seen[0, :, reads:], c[0] = start
        w = cell.weights()
        from_x = cell.arranged(w.ih.data)
        matrix = np.concatenate([from_x[:, :, inputs:], cell.arranged(w.hh.data)], axis=2)
        gates = x.reshape(-1, inputs) @ from_x[:, :, :inputs].swapaxes(
            1, 2
        )  # what x gives; a step makes the gates of it
        if w.b_ih is not None and w.b_hh is not None:
            gates += cell.arranged(w.b_ih.data + w.b_hh.data).swapaxes(1, 2)
        self.kept = KeptByLSTM(x, seen, c, gates.reshape(4, steps, batch, size))
        self.product = ThinProduct(matrix.swapaxes(1, 2), batch)
        self.from_seen = np.empty((4, batch, size), x.dtype)
        self.into = self.product.into(self.from_seen)

    def step(self, t: int, r: Array) -> Array:
        """h_t, from r_{t-1} of shape (B, reads)."""
        _, seen, c, gates = self.kept
        seen[t, :, : self.reads] = r
        self.product.times(seen[t], self.product.matrix, self.into)
        a = gates[:, t]
        a += self.from_seen
        np.tanh(a, out=a)
        sigmoids = a[:3]  # sigmoid(a) = (tanh(a/2) + 1) / 2, and `arranged` has halved them
        sigmoids *= 0.5
        sigmoids += 0.5
        i, f, o, g = a
        c_t = np.multiply(f, c[t], out=c[t + 1])
        c_t += i * g
        h = np.multiply(o, np.tanh(c_t), out=self.h[t])
        seen[t + 1, :, self.reads :] = h
        return h


class LSTMBack:
    """The way back, as in layers.recurrent_steps; dh and dc are carried, and after step 0 those of the first state."""

    def __init__(self, cell: LSTMCell, kept: KeptByLSTM, reads: int) -> None:
        self.cell, self.reads = cell, reads
        self.x, self.seen, c, self.gates = kept
        steps, batch, size = c[1:].shape
        slopes = cell.slopes(
            self.gates.reshape(4, -1, size), c[:-1].reshape(-1, size), c[1:].reshape(-1, size)
        ).reshape(5, steps, batch, size)
        self.s_ifg, self.s_o, self.s_c = slopes[:3], slopes[3], slopes[4]
        w, self.inputs = cell.weights(), self.x.shape[2]
        self.matrix = np.concatenate([w.ih.data[:, self.inputs :], w.hh.data], axis=1)
        self.da = np.empty((steps, batch, 4 * size), c.dtype)  # i, f, g, o, as the rows of the weights
        self.dh, self.dc = (np.zeros((batch, size), c.dtype) for _ in range(2))

    def step(self, t: int, dh: Array) -> Array:
        """dr_{t-1}, of shape (B, reads)."""
        da = self.da[t]
        by_gate = da.reshape(len(da), 4, -1).swapaxes(0, 1)
        dh = dh + self.dh
        np.multiply(dh, self.s_o[t], out=by_gate[3])
        self.dc += dh * self.s_c[t]
        np.multiply(self.dc, self.s_ifg[:, t], out=by_gate[:3])
        self.dc *= self.gates[1, t]
        dseen = da @ self.matrix
        self.dh = dseen[:, self.reads :]
        dr: Array = dseen[:, : self.reads]
        return dr

    def finish(self, wants_dx: bool) -> Array | None:
        """Add to the gradients of the parameters; dx, where it is wanted."""
        w = self.cell.weights()
        da = self.da.reshape(-1, self.da.shape[2])
        dweight = da.T @ self.seen[:-1].reshape(len(da), -1)
        w.ih.grad[:, : self.inputs] += da.T @ self.x.reshape(len(da), -1)
        w.ih.grad[:, self.inputs :] += dweight[:, : self.reads]
        w.hh.grad += dweight[:, self.reads :]
        for bias in (w.b_ih, w.b_hh):
            if bias is not None:
                bias.grad += da.sum(axis=0)
        return self.da @ w.ih.data[:, : self.inputs] if wants_dx else None


def _add_gradients(linear: Linear, dy: Array, x: Array) -> None:
    drows = dy.reshape(-1, dy.shape[2])
    linear.weight.add_product(drows.T, x.reshape(len(drows), -1))
    if linear.bias is not None:
        linear.bias.grad += drows.sum(axis=0)
