"""The parts of a Neural Turing Machine that have weights, over the steps of one sequence, there and back.

What r_{t-1}, what was read before, gives to a step has to wait for that step. What x gives is one product for all of
them, before the loop; and the gradients of the weights are one product for all of them, after it.

    controller = FeedForward(linear, x, reads)            controller.begin_back()
    h_t = controller.step(t, r)            ...            dr = controller.step_back(t, dh)
                                                          dx = controller.finish(wants_dx)
"""

from __future__ import annotations

import numpy as np

from backhand.layers.cells import LSTMCell
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array
from backhand.layers.thin_product import ThinProduct


class LinearSteps:
    """A Linear whose input comes a step at a time.

        y_t = x_t W^T + b        dx_t = dy_t W        dW = sum over t of dy_t^T x_t        db = sum of dy_t

    linear : W and b      x_t : (B, in_features)      y_t : (B, out_features)
    """

    def __init__(self, linear: Linear, steps: int, batch: int) -> None:
        self.linear = linear
        dtype = linear.weight.dtype
        self.x = np.empty((steps, batch, linear.in_features), dtype)
        self.dy = np.empty((steps, batch, linear.out_features), dtype)
        self.product = ThinProduct(linear.weight.data.T[None], batch)

    def step(self, t: int, x: Array) -> Array:
        """y_t, a new array."""
        self.x[t] = x
        y = np.empty((1, *self.dy.shape[1:]), self.dy.dtype)
        self.product.times(x, self.product.matrix, self.product.into(y))
        if self.linear.bias is not None:
            y += self.linear.bias.data
        return y[0]

    def step_back(self, t: int, dy: Array) -> Array:
        """dx_t."""
        self.dy[t] = dy
        dx: Array = dy @ self.linear.weight.data
        return dx

    def finish(self) -> None:
        """Add to the gradients of W and b."""
        _add_gradients(self.linear, self.dy, self.x)


class FeedForward:
    """A tanh layer.

        h_t = tanh(W [x_t, r_{t-1}] + b)        da_t = dh_t (1 - h_t^2)        dr_{t-1} = da_t W_r
        dW = sum over t of da_t^T [x_t, r_{t-1}]        db = sum of da_t        dx_t = da_t W_x

    linear : W and b      x : (T, B, inputs)      reads : how many numbers r has      h : (T, B, hidden_size)
    """

    def __init__(self, linear: Linear, x: Array, reads: int) -> None:
        steps, batch, self.inputs = x.shape
        self.linear = linear
        weight = linear.weight.data
        self.seen = np.empty((steps, batch, self.inputs + reads), x.dtype)
        self.seen[:, :, : self.inputs] = x
        self.h = x @ weight[:, : self.inputs].T  # a_t as far as x gives it; a step makes h_t of it
        if linear.bias is not None:
            self.h += linear.bias.data
        self.product = ThinProduct(weight[:, self.inputs :].T[None], batch)
        self.from_r = np.empty((1, *self.h.shape[1:]), x.dtype)
        self.into = self.product.into(self.from_r)
        self.da = self.dr = self.h  # none yet

    def step(self, t: int, r: Array) -> Array:
        """h_t, from r_{t-1} of shape (B, reads)."""
        self.seen[t, :, self.inputs :] = r
        h: Array = self.h[t]
        self.product.times(r, self.product.matrix, self.into)
        h += self.from_r[0]
        return np.tanh(h, out=h)

    def begin_back(self) -> None:
        """Work out what of the backward needs no dh: the slopes, of all the steps."""
        self.da = 1 - self.h * self.h

    def step_back(self, t: int, dh: Array) -> Array:
        """dr_{t-1}, of shape (B, reads)."""
        da = self.da[t]
        da *= dh
        dr: Array = da @ self.linear.weight.data[:, self.inputs :]
        return dr

    def finish(self, wants_dx: bool) -> Array | None:
        """Add to the gradients of the parameters; dx, where it is wanted."""
        _add_gradients(self.linear, self.da, self.seen)
        return self.da @ self.linear.weight.data[:, : self.inputs] if wants_dx else None


class LSTM:
    """An LSTM, whose equations stand in LSTMCell; its input is [x_t, r_{t-1}], its state starts from a learned one.

    cell : the weights      x : (T, B, inputs)      reads : how many numbers r has
    hidden, cell_state : (hidden_size,), the state before the first step
    """

    def __init__(self, cell: LSTMCell, x: Array, reads: int, hidden: Array, cell_state: Array) -> None:
        steps, batch, self.inputs = x.shape
        self.cell, self.reads, size = cell, reads, cell.hidden_size
        self.x = x
        self.seen = np.empty((steps + 1, batch, reads + size), x.dtype)  # r_{t-1} and h_{t-1}
        self.c = np.empty((steps + 1, batch, size), x.dtype)
        self.seen[0, :, reads:] = hidden
        self.c[0] = cell_state
        w = cell.weights()
        from_x = cell.arranged(w.ih.data)
        joined = np.concatenate([from_x[:, :, self.inputs :], cell.arranged(w.hh.data)], axis=2)
        self.gates = x.reshape(-1, self.inputs) @ from_x[:, :, : self.inputs].swapaxes(1, 2)  # (4, T B, hidden_size)
        if w.b_ih is not None and w.b_hh is not None:
            self.gates += cell.arranged(w.b_ih.data + w.b_hh.data).swapaxes(1, 2)
        self.gates = self.gates.reshape(4, steps, batch, size)
        self.product = ThinProduct(joined.swapaxes(1, 2), batch)
        self.from_seen = np.empty((4, batch, size), x.dtype)
        self.into = self.product.into(self.from_seen)

    def step(self, t: int, r: Array) -> Array:
        """h_t, from r_{t-1} of shape (B, reads)."""
        seen = self.seen[t]
        seen[:, : self.reads] = r
        self.product.times(seen, self.product.matrix, self.into)
        a = self.gates[:, t]
        a += self.from_seen
        np.tanh(a, out=a)
        sigmoids = a[:3]  # sigmoid(a) = (tanh(a/2) + 1) / 2, and `arranged` has halved them
        sigmoids *= 0.5
        sigmoids += 0.5
        i, f, o, g = a
        c = np.multiply(f, self.c[t], out=self.c[t + 1])
        c += i * g
        return np.multiply(o, np.tanh(c), out=self.seen[t + 1, :, self.reads :])

    def begin_back(self) -> None:
        """Work out what of the backward needs no dh: the slopes, of all the steps."""
        rows = self.gates.shape[1] * self.gates.shape[2], self.gates.shape[3]
        slopes = self.cell.slopes(
            self.gates.reshape(4, *rows), self.c[:-1].reshape(rows), self.c[1:].reshape(rows)
        ).reshape(5, *self.c[1:].shape)
        self.slopes, self.s_o, self.s_c = slopes[:3], slopes[3], slopes[4]
        w = self.cell.weights()
        self.back = np.concatenate([w.ih.data[:, self.inputs :], w.hh.data], axis=1)
        self.da = np.empty((*self.c[1:].shape[:2], 4 * self.c.shape[2]), self.c.dtype)  # in the order of the weights
        self.dh, self.dc = (np.zeros(self.c.shape[1:], self.c.dtype) for _ in range(2))

    def step_back(self, t: int, dh: Array) -> Array:
        """dr_{t-1}, of shape (B, reads)."""
        da = self.da[t]
        by_gate = da.reshape(len(da), 4, -1).swapaxes(0, 1)  # i, f, g, o
        dh = dh + self.dh
        np.multiply(dh, self.s_o[t], out=by_gate[3])
        self.dc += dh * self.s_c[t]
        np.multiply(self.dc, self.slopes[:, t], out=by_gate[:3])
        self.dc *= self.gates[1, t]
        dseen = da @ self.back
        self.dh = dseen[:, self.reads :]
        dr: Array = dseen[:, : self.reads]
        return dr

    def finish(self, wants_dx: bool) -> Array | None:
        """Add to the gradients of the parameters; dx, where it is wanted."""
        w = self.cell.weights()
        da = self.da.reshape(-1, self.da.shape[2])
        seen = self.seen[:-1].reshape(len(da), -1)
        dweight = da.T @ seen
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
