"""The cells: one step of a recurrent net, as a layer.

Their equations, there and back, stand here; recurrent_steps.py and recurrence.py compute them, for a cell (one step)
and for a whole layer (all steps) alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import flag, whole
from backhand.layers.packing import Packing
from backhand.layers.parameter import Parameter
from backhand.layers.recurrence import Recurrence, features
from backhand.layers.recurrent_steps import ElmanStep, GRUStep, LSTMStep


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
