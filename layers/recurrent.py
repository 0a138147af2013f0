"""Recurrent layers over whole sequences: several layers, both directions, sequences of different lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import flag, refuse, whole, within
from backhand.layers.dropout import Dropout
from backhand.layers.packing import Packing
from backhand.layers.parameter import Array
from backhand.layers.recurrence import Recurrence, features
from backhand.layers.recurrent_steps import ElmanStep, GRUStep, LSTMStep


class Stack(Recurrence):
    """What RNN, LSTM and GRU share: scans above each other, in one direction or both.

        y^l = [scan(y^{l-1}), scan of y^{l-1} from its end],    y^0 = x
        dy^{l-1} = the sum of what the two scans send back

    with dropout between the layers. Inside, all arrays are rows (recurrence.Packing); the axes are put back at the end.
    """

    between: Dropout | None = None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        return_state: bool = False,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.input_size = whole(self, "input_size", input_size)
        self.hidden_size = whole(self, "hidden_size", hidden_size)
        self.num_layers = whole(self, "num_layers", num_layers)
        self.bias = flag(self, "bias", bias)
        self.batch_first = flag(self, "batch_first", batch_first)
        if isinstance(dropout, (bool, np.bool_)):
            refuse(self, "dropout in [0, 1]", dropout)
        self.dropout = within(self, "dropout", dropout, 0, 1)
        self.bidirectional = bool(bidirectional)
        if self.proj_size >= self.hidden_size:
            refuse(self, "proj_size below hidden_size", self.proj_size)
        self.return_state = flag(self, "return_state", return_state)
        rng = np.random.default_rng(rng)
        for layer in range(self.num_layers):
            inputs = self.output_size * self._directions() if layer else self.input_size
            for direction in range(self._directions()):
                self.add_weights(_suffix(layer, direction), inputs, self.bias, rng, dtype)
        if self.dropout and self.num_layers > 1:
            self.between = Dropout(self.dropout, rng=rng)

    def forward(self, x: ArrayLike, hx: Any = None, *, lengths: ArrayLike | None = None, one_hot: bool = False) -> Any:
        dtype = self.weights("_l0").ih.dtype
        x, batched = self._rows_of_identity(x) if flag(self, "one_hot", one_hot) else self._sequences(x, dtype)
        steps, batch = x.shape[:2]
        scans = self.num_layers * self._directions()
        shapes = [(scans, *((batch,) if batched else ()), size) for size in (self.output_size, self.hidden_size)]
        start = self.initial(hx, shapes[: self.states], dtype)
        packing = Packing(steps, batch, self._lengths(lengths, steps, (batch,) if batched else ()))

        start = tuple(packing.sort(s.reshape(scans, batch, -1)) for s in start)
        rows = packing.pack(x)
        kept, ends = [], []
        for layer in range(self.num_layers):
            if layer and self.between is not None:
                rows = self.between.forward(rows)
            ways = []
            for direction in range(self._directions()):
                k = layer * self._directions() + direction
                along = packing.turn(rows) if direction else rows
                own = self.scan(along, tuple(s[k] for s in start), packing, self.weights(_suffix(layer, direction)))
                y = own.states[0][batch:]
                ways.append(packing.turn(y) if direction else y)
                if self.return_state:
                    ends.append([packing.last(s) for s in own.states])
                if self.caching:
                    kept.append(own)
            rows = ways[0] if len(ways) == 1 else np.concatenate(ways, axis=1)
        output = self._as_given(packing.unpack(rows), batched)
        last = [
            packing.unsort(np.stack(s)).reshape(shape)
            for s, shape in zip(zip(*ends, strict=True), shapes, strict=False)
        ]
        result = (output, self.nested(last)) if self.return_state else output
        self.save(kept, packing, batched, one_hot, hx is not None, out=result)
        return result

    def backward(self, dout: Any) -> Any:
        dout = self.upstream(dout)
        kept, packing, batched, one_hot, given = self.saved()
        differentiable = self.input_requires_grad and not one_hot
        dy, dlast = dout if self.return_state else (dout, None)
        drows = packing.pack(self._time_major(dy, batched))
        scans, batch, sizes = len(kept), packing.shape[1], (self.output_size, self.hidden_size)[: self.states]
        if dlast is None:
            dend = [np.zeros((scans, batch, size), drows.dtype) for size in sizes]
        else:
            dlast = dlast if type(dlast) is tuple else (dlast,)
            dend = [packing.sort(d.reshape(scans, batch, -1)) for d in dlast]
        dstart = [np.empty((scans, batch, size), drows.dtype) for size in sizes]
        for layer in reversed(range(self.num_layers)):
            wants_dx = layer > 0 or differentiable
            dinputs = []
            for direction in reversed(range(self._directions())):
                k = layer * self._directions() + direction
                half = drows[:, direction * self.output_size : (direction + 1) * self.output_size]
                along, w = packing.turn(half) if direction else half, self.weights(_suffix(layer, direction))
                dinput, dfirst = self.scan_back(kept.pop(), along, tuple(d[k] for d in dend), packing, w, wants_dx)
                if dinput is not None:
                    dinputs.append(packing.turn(dinput) if direction else dinput)
                for d, each in zip(dstart, dfirst, strict=True):
                    d[k] = each
            if dinputs:
                drows = dinputs[0] if len(dinputs) == 1 else dinputs[0] + dinputs[1]  # both directions read the input
            if layer and self.between is not None:
                drows = self.between.backward(drows)
        dx = self._as_given(packing.unpack(drows), batched) if differentiable else None
        dhx = [packing.unsort(d) if batched else d[:, 0] for d in dstart]
        return (dx, self.nested(dhx)) if given else dx

    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    # ------------------------------------------------------------------ axes

    def _sequences(self, x: ArrayLike, dtype: np.dtype[Any]) -> tuple[Array, bool]:
        """x as (T, N, input_size), and whether it came with a batch axis."""
        many = f"(N, T, {self.input_size})" if self.batch_first else f"(T, N, {self.input_size})"
        # torch takes no other dtype than the parameters'; that float32 turns float64 unnoticed is ruled out here too
        if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.dtype.itemsize < dtype.itemsize:
            hint = f"use x.astype({str(dtype)!r}), or astype({str(x.dtype)!r}) on the layer"
            self.reject(f"x of {dtype}, the dtype of the parameters", x.dtype, hint)
        array = features(self, x, {3: many, 2: f"(T, {self.input_size})"}, dtype)
        return self._time_major(array, array.ndim == 3), array.ndim == 3

    def _rows_of_identity(self, x: ArrayLike) -> tuple[Array, bool]:
        """Integers as (T, N, 1), and whether they came with a batch axis."""
        index = self.array(x)
        if index.dtype.kind not in "iu" or index.ndim not in (1, 2):
            many = "(N, T)" if self.batch_first else "(T, N)"
            self.reject(f"integers of shape {many} or (T,) with one_hot", f"{index.dtype} of shape {index.shape}")
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= self.input_size:
            self.reject(f"integers from 0 to {self.input_size - 1} with one_hot", low if low < 0 else high)
        return self._time_major(index.astype(np.intp, copy=False)[..., None], index.ndim == 2), index.ndim == 2

    def _time_major(self, x: Array, batched: bool) -> Array:
        """(T, N, F), from the order of axes that the user has."""
        if not batched:
            return x[:, None]
        return x.swapaxes(0, 1) if self.batch_first else x

    def _as_given(self, x: Array, batched: bool) -> Array:
        """The way back."""
        if not batched:
            return x[:, 0]
        return x.swapaxes(0, 1) if self.batch_first else x

    def _lengths(self, lengths: ArrayLike | None, steps: int, shape: tuple[int, ...]) -> Array | None:
        """The lengths as integers, checked."""
        if lengths is None:
            return None
        array = self.array(np.int64(lengths) if type(lengths) is int else lengths)
        if array.shape != shape or array.dtype.kind not in "iu":
            self.reject(f"lengths as integers of shape {shape}", f"{array.dtype} of shape {array.shape}")
        if array.min() < 1 or array.max() > steps:
            self.reject(f"lengths from 1 to {steps}", f"{int(array.min())} to {int(array.max())}")
        return array.reshape(-1).astype(np.intp)


def _suffix(layer: int, direction: int) -> str:
    return f"_l{layer}{'_reverse' if direction else ''}"


class RNN(ElmanStep, Stack):
    """A plain recurrent net (Elman's) over sequences, in one or more layers.

        h_t = tanh(a_t), or max(a_t, 0),    a_t = x_t W_ih^T + b_ih + h_{t-1} W_hh^T + b_hh

    and the next layer reads h. Backward, from the last step to the first:

        dh_t = dy_t + da_{t+1} W_hh        da_t = dh_t (1 - h_t^2), or dh_t where h_t > 0
        dx_t = da_t W_ih        dW_ih = sum_t da_t^T x_t        dW_hh = sum_t da_t^T h_{t-1}        db = sum_t da_t

    x : (T, N, input_size), with batch_first (N, T, input_size), or unbatched (T, input_size)
    y : the h of the last layer at every step, (T, N, D H) or as x;    H = hidden_size, D = 2 if bidirectional, else 1
    hx : the initial states, (num_layers D, N, H), or (num_layers D, H) for an unbatched x; None is zeros
    num_layers, bidirectional, bias : how many layers, in both directions or one, with the two biases or without
    dropout : the chance that a number between two layers is dropped, while training
    nonlinearity : "tanh" or "relu"
    return_state : return the last states too
    lengths : N integers from 1 to T, the true lengths of padded sequences (one without axes for an unbatched x). y and
        dx are 0 beyond them, the last state is each sequence's own, and the backward direction starts at each
        sequence's own end; in torch: pack_padded_sequence(enforce_sorted=False), then pad_packed_sequence
    one_hot : x are integers, (T, N), (N, T) or (T,), in the place of rows of an identity matrix, which is never formed;
        there is no dx then (None)
    weight_ih_l0 : (H, input_size)      weight_hh_l0 : (H, H)      bias_ih_l0, bias_hh_l0 : (H,)
    Layers count on as l1, ...; those above the first read D H numbers. The other direction's names end in _reverse.
    All start from U(-1/sqrt(H), 1/sqrt(H)), as in torch.nn.

    Returns y, or (y, h_n) with return_state, h_n shaped as hx. backward takes dy, or (dy, dh_n), and gives dx, or
    (dx, dhx) when hx was given. `Unroll(RNNCell(...))` is the same thing step by step.
    Elman 1990, "Finding Structure in Time"; Schuster & Paliwal 1997, "Bidirectional Recurrent Neural Networks"
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        return_state: bool = False,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.set_nonlinearity(nonlinearity)
        options: dict[str, Any] = {"return_state": return_state, "rng": rng, "dtype": dtype}
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **options)


class LSTM(LSTMStep, Stack):
    """A long short-term memory over sequences, in one or more layers.

        a_t = x_t W_ih^T + b_ih + h_{t-1} W_hh^T + b_hh,    in four blocks: a_i, a_f, a_g, a_o
        i = sigmoid(a_i)    f = sigmoid(a_f)    g = tanh(a_g)    o = sigmoid(a_o)
        c_t = f c_{t-1} + i g        h_t = m_t = o tanh(c_t), or m_t W_hr^T with proj_size

    and the next layer reads h. Backward, from the last step to the first:

        dh_t = dy_t + da_{t+1} W_hh        dm_t = dh_t, or dh_t W_hr
        dc_t = dc_{t+1} f_{t+1} + dm_t o (1 - tanh(c_t)^2)
        da_i = dc_t g i (1 - i)        da_f = dc_t c_{t-1} f (1 - f)
        da_g = dc_t i (1 - g^2)        da_o = dm_t tanh(c_t) o (1 - o)
        dx_t = da_t W_ih        dW_ih = sum_t da_t^T x_t        dW_hh = sum_t da_t^T h_{t-1}        db = sum_t da_t
        dW_hr = sum_t dh_t^T m_t

    x : (T, N, input_size), with batch_first (N, T, input_size), or unbatched (T, input_size)
    y : the h of the last layer at every step, (T, N, D P) or as x;    D = 2 if bidirectional, else 1
    hx : (h, c), the initial states, (num_layers D, N, P) and (num_layers D, N, H), both without N for an unbatched x;
        None is zeros;    H = hidden_size, P = proj_size or H
    num_layers, bidirectional, bias : how many layers, in both directions or one, with the two biases or without
    dropout : the chance that a number between two layers is dropped, while training
    proj_size : P < hidden_size, the size of a projected h; 0 is no projection
    return_state : return the last states too
    lengths : N integers from 1 to T, the true lengths of padded sequences (one without axes for an unbatched x). y and
        dx are 0 beyond them, the last state is each sequence's own, and the backward direction starts at each
        sequence's own end; in torch: pack_padded_sequence(enforce_sorted=False), then pad_packed_sequence
    one_hot : x are integers, (T, N), (N, T) or (T,), in the place of rows of an identity matrix, which is never formed;
        there is no dx then (None)
    weight_ih_l0 : (4 H, input_size)      weight_hh_l0 : (4 H, P)      bias_ih_l0, bias_hh_l0 : (4 H,)
    weight_hr_l0 : (P, H), with proj_size only
    Layers count on as l1, ...; those above the first read D P numbers. The other direction's names end in _reverse.
    All start from U(-1/sqrt(H), 1/sqrt(H)), as in torch.nn.

    Returns y, or (y, (h_n, c_n)) with return_state, shaped as hx. backward takes dy, or (dy, (dh_n, dc_n)), and gives
    dx, or (dx, (dh, dc)) when hx was given. `Unroll(LSTMCell(...))` is the same thing step by step.

        y = LSTM(10, 20)(x)                                     # x (T, N, 10), y (T, N, 20)
        y, (h_n, c_n) = LSTM(10, 20, return_state=True)(x, (h_0, c_0))

    Hochreiter & Schmidhuber 1997, "Long Short-Term Memory"; f: Gers, Schmidhuber & Cummins 2000; W_hr: Sak, Senior &
    Beaufays 2014, arXiv:1402.1128
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        return_state: bool = False,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.proj_size = whole(self, "proj_size", proj_size, least=0)
        options: dict[str, Any] = {"return_state": return_state, "rng": rng, "dtype": dtype}
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, **options)


class GRU(GRUStep, Stack):
    """A gated recurrent unit over sequences, in one or more layers.

        r = sigmoid(x_t W_ir^T + b_ir + h_{t-1} W_hr^T + b_hr)
        z = sigmoid(x_t W_iz^T + b_iz + h_{t-1} W_hz^T + b_hz)
        q = h_{t-1} W_hn^T + b_hn        n = tanh(a_n),    a_n = x_t W_in^T + b_in + r q
        h_t = (1 - z) n + z h_{t-1}

    and the next layer reads h. Backward, from the last step to the first:

        dh_t = dy_t + dh_{t+1} z_{t+1} + [da_r da_z dq]_{t+1} W_hh
        da_n = dh_t (1 - z) (1 - n^2)        da_z = dh_t (h_{t-1} - n) z (1 - z)
        da_r = da_n q r (1 - r)        dq = da_n r
        dx_t = [da_r da_z da_n] W_ih        dW_ih = sum_t [da_r da_z da_n]^T x_t        db_ih = sum_t [da_r da_z da_n]
        dW_hh = sum_t [da_r da_z dq]^T h_{t-1}        db_hh = sum_t [da_r da_z dq]

    x : (T, N, input_size), with batch_first (N, T, input_size), or unbatched (T, input_size)
    y : the h of the last layer at every step, (T, N, D H) or as x;    H = hidden_size, D = 2 if bidirectional, else 1
    hx : the initial states, (num_layers D, N, H), or (num_layers D, H) for an unbatched x; None is zeros
    num_layers, bidirectional, bias : how many layers, in both directions or one, with the two biases or without
    dropout : the chance that a number between two layers is dropped, while training
    return_state : return the last states too
    lengths : N integers from 1 to T, the true lengths of padded sequences (one without axes for an unbatched x). y and
        dx are 0 beyond them, the last state is each sequence's own, and the backward direction starts at each
        sequence's own end; in torch: pack_padded_sequence(enforce_sorted=False), then pad_packed_sequence
    one_hot : x are integers, (T, N), (N, T) or (T,), in the place of rows of an identity matrix, which is never formed;
        there is no dx then (None)
    weight_ih_l0 : (3 H, input_size), rows r, z, n      weight_hh_l0 : (3 H, H)      bias_ih_l0, bias_hh_l0 : (3 H,)
    Layers count on as l1, ...; those above the first read D H numbers. The other direction's names end in _reverse.
    All start from U(-1/sqrt(H), 1/sqrt(H)), as in torch.nn.

    Returns y, or (y, h_n) with return_state, h_n shaped as hx. backward takes dy, or (dy, dh_n), and gives dx, or
    (dx, dhx) when hx was given. `Unroll(GRUCell(...))` is the same thing step by step.
    Cho et al. 2014, arXiv:1406.1078, with r applied after the product, as in torch and cuDNN
    """
