"""Recurrent layers: variable lengths, the fast form against the unrolled cell, dropout between layers, refusals."""

import numpy as np
import pytest

from backhand.inspection import check_layer
from backhand.layers import GRU, LSTM, RNN, Dropout, GRUCell, Layer, LayerError, LSTMCell, RNNCell
from backhand.models import Sequential, Unroll
from tests.conftest import need

KINDS = [(RNN, RNNCell, {}), (RNN, RNNCell, {"nonlinearity": "relu"}), (LSTM, LSTMCell, {}), (GRU, GRUCell, {})]
STACKS = [RNN, LSTM, GRU]
CELLS = [RNNCell, LSTMCell, GRUCell]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def start(layer, scans, batch, seed=5):
    """Initial states of the right shapes; batch is (N,) or ()."""
    h = normal(scans, *batch, layer.output_size, seed=seed)
    return (h, normal(scans, *batch, layer.hidden_size, seed=seed + 1)) if isinstance(layer, LSTM) else h


def flat(tree):
    return [leaf for each in tree for leaf in flat(each)] if isinstance(tree, tuple) else [tree]


def drawn_dout(y, seed=2):
    if isinstance(y, tuple):
        return tuple(drawn_dout(each, seed + i + 1) for i, each in enumerate(y))
    return normal(*y.shape, seed=seed)


def assert_same(got, wanted, tolerance=1e-12):
    for a, b in zip(flat(got), flat(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def gradients(layer):
    return [parameter.grad for parameter in layer.parameters()]


# ---------------------------------------------------------------------- the fast form and the readable one


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(("fast", "cell", "extra"), KINDS)
def test_the_fast_layer_agrees_with_the_unrolled_cell(fast, cell, extra, given, batch_first, bias):
    layer = fast(3, 4, bias=bias, batch_first=batch_first, return_state=True, rng=0, dtype=np.float64, **extra)
    readable = Unroll(cell(3, 4, bias, dtype=np.float64, **extra), batch_first=batch_first, return_state=True)
    readable.cell.load_state_dict({name.removesuffix("_l0"): array for name, array in layer.state_dict().items()})
    x = normal(2, 6, 3) if batch_first else normal(6, 2, 3)
    hx = start(layer, 1, (2,)) if given else None
    first = tuple(s[0] for s in hx) if isinstance(hx, tuple) else hx if hx is None else hx[0]
    (y, last), (wanted, wanted_last) = layer(x, hx), readable(x, first)
    assert_same(y, wanted)
    assert_same(tuple(s[0] for s in flat(last)), tuple(flat(wanted_last)))
    dy, dlast = drawn_dout((y, last))
    dlast_cell = tuple(d[0] for d in dlast) if isinstance(dlast, tuple) else dlast[0]
    back, wanted_back = layer.backward((dy, dlast)), readable.backward((dy, dlast_cell))
    if given:
        assert_same(tuple(d[0] for d in flat(back[1])), tuple(flat(wanted_back[1])))
        back, wanted_back = back[0], wanted_back[0]
    assert_same(back, wanted_back)
    assert_same(tuple(gradients(layer)), tuple(gradients(readable)))


@pytest.mark.parametrize("cls", STACKS)
def test_two_directions_are_two_layers_one_of_them_on_the_reversed_sequence(cls):
    layer = cls(3, 4, bidirectional=True, rng=0, dtype=np.float64)
    parts = [cls(3, 4, dtype=np.float64) for _ in range(2)]
    for part, end in zip(parts, ("", "_reverse"), strict=True):
        for name in part.state_dict():
            getattr(part, name).data[...] = getattr(layer, name + end).data
    x = normal(5, 2, 3)
    assert_same(layer(x), np.concatenate([parts[0](x), parts[1](x[::-1])[::-1]], axis=-1))
    dy = normal(5, 2, 8, seed=1)
    there, back = parts[0].backward(dy[..., :4]), parts[1].backward(dy[::-1, :, 4:])[::-1]
    assert_same(layer.backward(dy), there + back)


# ---------------------------------------------------------------------- lengths


def packed(cls):
    """torch's class, with our `lengths`."""
    torch = need("torch")

    class Packed(getattr(torch.nn, cls.__name__)):
        def forward(self, x, hx=None, *, lengths):
            rnn = torch.nn.utils.rnn
            rows = rnn.pack_padded_sequence(x, lengths, batch_first=self.batch_first, enforce_sorted=False)
            y, last = super().forward(rows, hx)
            total = x.shape[1 if self.batch_first else 0]
            return rnn.pad_packed_sequence(y, batch_first=self.batch_first, total_length=total)[0], last

    return Packed


@pytest.mark.parity
@pytest.mark.parametrize("lengths", [[5, 5, 5], [5, 3, 1], [1, 5, 2], [2, 3, 3], [4, 4, 4], [1, 1, 1]], ids=str)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize(
    ("cls", "extra"), [(RNN, {}), (RNN, {"nonlinearity": "relu"}), (LSTM, {}), (LSTM, {"proj_size": 2}), (GRU, {})]
)
def test_lengths_are_packed_sequences(cls, extra, num_layers, bidirectional, lengths):
    need("torch")
    from tests import parity

    for batch_first in (False, True):
        arguments = {"num_layers": num_layers, "bidirectional": bidirectional, "batch_first": batch_first, **extra}
        layer = cls(3, 4, return_state=True, rng=0, dtype=np.float64, **arguments)
        x = normal(3, 5, 3) if batch_first else normal(5, 3, 3)
        hx = start(layer, num_layers * (2 if bidirectional else 1), (3,))
        options = {"lengths": np.array(lengths)}
        parity.compare(layer, packed(cls)(3, 4, **arguments).double(), [((x,), options), ((x, hx), options)])


class WithLengths(Layer):
    """A recurrent layer that is always given the same lengths."""

    def __init__(self, body, lengths):
        self.body, self.lengths = body, lengths

    def forward(self, *inputs):
        return self.body(*inputs, lengths=self.lengths)

    def backward(self, dout):
        return self.body.backward(dout)


@pytest.mark.parametrize("cls", STACKS)
def test_lengths_pass_check_layer(cls):
    body = cls(3, 4, 2, bidirectional=True, return_state=True, rng=0)
    hx = start(body, 4, (3,))
    check_layer(WithLengths(body, [2, 4, 1]), normal(4, 3, 3), hx)


@pytest.mark.parametrize("cls", STACKS)
def test_nothing_beyond_the_lengths_matters(cls):
    """Padding may hold anything, even nan; y and dx are zero there, and dy there goes nowhere."""
    lengths = np.array([2, 5, 3])
    beyond = np.arange(5)[:, None] >= lengths
    results = []
    for filling in (0.0, np.nan):
        layer = cls(3, 4, 2, bidirectional=True, rng=0)
        x, dy = normal(5, 3, 3).astype(np.float32), normal(5, 3, 8, seed=1).astype(np.float32)
        x[beyond] = filling
        dy[beyond] = filling
        y = layer(x, lengths=lengths)
        dx = layer.backward(dy)
        assert y.dtype == dx.dtype == np.float32
        assert not y[beyond].any()
        assert not dx[beyond].any()
        results.append((y, dx, *gradients(layer)))
    assert_same(results[0], results[1], 0)


@pytest.mark.parametrize("cls", STACKS)
def test_each_sequence_comes_out_as_if_it_were_alone(cls):
    layer = cls(3, 4, 2, bidirectional=True, return_state=True, rng=0, dtype=np.float64)
    x, lengths = normal(5, 3, 3), [2, 5, 3]
    y, last = layer(x, lengths=lengths)
    for i, n in enumerate(lengths):
        alone, alone_last = layer(x[:n, i])
        assert_same(y[:n, i], alone)
        assert_same(tuple(s[:, i] for s in flat(last)), tuple(flat(alone_last)))
        assert_same(layer(x[:, i], lengths=n)[0][:n], alone)  # an unbatched x has one length


# ---------------------------------------------------------------------- dropout


@pytest.mark.parametrize("cls", STACKS)
def test_dropout_is_between_the_layers_only(cls):
    layer = cls(3, 4, 2, dropout=0.5, rng=0, dtype=np.float64)
    below, above = cls(3, 4, dtype=np.float64), cls(4, 4, dtype=np.float64)
    for name in below.state_dict():
        getattr(below, name).data[...] = getattr(layer, name).data
        getattr(above, name).data[...] = getattr(layer, name.replace("_l0", "_l1")).data
    drop = Dropout(0.5)
    drop.rng.bit_generator.state = layer.between.rng.bit_generator.state
    chain = Sequential(below, drop, above)
    x, dy = normal(5, 2, 3), normal(5, 2, 4, seed=1)
    assert_same(layer(x), chain(x))
    assert_same(layer.backward(dy), chain.backward(dy))
    y = layer(x)
    assert not np.array_equal(y, layer(x))  # drawn anew each time
    layer.eval()
    assert_same(layer(x), Sequential(below, above).eval()(x))


def test_a_seed_means_one_set_of_masks():
    x = normal(5, 2, 3)
    first, second = (LSTM(3, 4, 3, dropout=0.5, rng=1) for _ in range(2))
    assert np.array_equal(first(x), second(x))
    assert_same(tuple(first.state_dict().values()), tuple(second.state_dict().values()), 0)


# ---------------------------------------------------------------------- what is kept and handed out


@pytest.mark.parametrize("cls", STACKS)
def test_backward_overwrites_nothing_that_was_handed_out(cls):
    layer = cls(3, 4, 2, bidirectional=True, return_state=True, rng=0)
    outputs = flat(layer(normal(5, 2, 3)))
    before = [y.copy() for y in outputs]
    dout = tuple(np.ones_like(y) for y in outputs)
    layer.backward((dout[0], dout[1:] if cls is LSTM else dout[1]))
    assert_same(tuple(outputs), tuple(before), 0)
    assert not layer._stack


def test_only_what_is_needed_is_kept():
    rnn, lstm, gru = (cls(3, 4) for cls in STACKS)
    for layer in (rnn, lstm, gru):
        layer(normal(5, 2, 3))
    kept = [layer._stack[0][1][0][0] for layer in (rnn, lstm, gru)]
    assert [k.gates if k.gates is None else k.gates.shape for k in kept] == [None, (4, 10, 4), (4, 10, 4)]
    assert [len(k.states) for k in kept] == [1, 2, 1]
    evaluated = lstm.eval()
    lstm.zero_grad()
    evaluated(normal(5, 2, 3))
    assert not lstm._stack


@pytest.mark.parametrize("cls", STACKS)
def test_the_state_may_have_no_gradient(cls):
    layer = cls(3, 4, return_state=True, rng=0, dtype=np.float64)
    x, dy = normal(5, 2, 3), normal(5, 2, 4, seed=1)
    _, last = layer(x)
    wanted = layer.backward((dy, tuple(np.zeros_like(s) for s in last) if cls is LSTM else np.zeros_like(last)))
    layer(x)
    assert_same(layer.backward((dy, None)), wanted, 0)
    plain = cls(3, 4, dtype=np.float64)
    plain.load_state_dict(layer.state_dict())
    plain(x)
    assert_same(plain.backward(dy), wanted, 0)
    if cls is LSTM:
        layer(x)
        assert_same(layer.backward((dy, (None, None))), wanted, 0)
    layer(x)
    assert not layer.backward(None).any()


def test_a_wrong_dout_pops_nothing():
    layer = LSTM(3, 4, return_state=True)
    y, (h, c) = layer(normal(5, 2, 3))
    for wrong in [y, (y,), (y, h), (y, (h,)), (y, (h, c[0])), (y, h, c)]:
        with pytest.raises(LayerError, match="expected dout"):
            layer.backward(wrong)
    layer.backward((y, (h, c)))


# ---------------------------------------------------------------------- construction


@pytest.mark.parametrize("cls", [*STACKS, *CELLS])
def test_parameters_start_as_in_torch(cls):
    layer = cls(30, 100, rng=0)
    for parameter in layer.parameters():
        assert abs(parameter.data).max() <= 0.1
        assert parameter.data.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.1)


@pytest.mark.parametrize("cls", [*STACKS, *CELLS])
@pytest.mark.parametrize(
    "arguments",
    [(0, 4), (3, 0), (-1, 4), (3.0, 4), ("3", 4), (True, 4), (3, None)],
)
def test_sizes_are_checked(cls, arguments):
    with pytest.raises(ValueError, match=f"^{cls.__name__}: expected (input|hidden)_size to be a positive integer"):
        cls(*arguments)


@pytest.mark.parametrize("cls", STACKS)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "expected num_layers to be a positive integer, got 0"),
        ({"num_layers": 1.5}, "expected num_layers to be a positive integer, got 1.5"),
        ({"dropout": 1.5}, r"expected dropout in \[0, 1\], got 1.5"),
        ({"dropout": -0.1}, r"expected dropout in \[0, 1\], got -0.1"),
        ({"dropout": True}, r"expected dropout in \[0, 1\], got True"),
        ({"dropout": "0.5"}, r"expected dropout in \[0, 1\], got '0.5'"),
        ({"bias": 1}, "expected bias to be True or False, got 1"),
        ({"batch_first": 0}, "expected batch_first to be True or False, got 0"),
        ({"return_state": 1}, "expected return_state to be True or False, got 1"),
    ],
    ids=str,
)
def test_arguments_are_checked(cls, arguments, message):
    with pytest.raises((ValueError, TypeError), match=f"^{cls.__name__}: {message}"):
        cls(3, 4, **arguments)


def test_arguments_of_one_kind():
    with pytest.raises(ValueError, match="LSTM: expected proj_size below hidden_size, got 4"):
        LSTM(3, 4, proj_size=4)
    with pytest.raises(ValueError, match="LSTM: expected proj_size to be an integer, 0 or more, got -1"):
        LSTM(3, 4, proj_size=-1)
    for cls in (RNN, RNNCell):
        with pytest.raises(ValueError, match="expected nonlinearity to be 'tanh' or 'relu', got 'sigmoid'"):
            cls(3, 4, nonlinearity="sigmoid")
    for cls in (RNN, GRU):
        with pytest.raises(TypeError, match="proj_size"):
            cls(3, 4, proj_size=2)


# ---------------------------------------------------------------------- inputs


@pytest.mark.parametrize("cls", STACKS)
@pytest.mark.parametrize(
    ("x", "hx", "lengths", "message"),
    [
        ((5, 2, 4), None, None, r"expected x of shape \(T, N, 3\) or \(T, 3\), got \(5, 2, 4\)"),
        ((3,), None, None, r"expected x of shape \(T, N, 3\) or \(T, 3\), got \(3,\)"),
        ((1, 5, 2, 3), None, None, r"expected x of shape \(T, N, 3\) or \(T, 3\), got \(1, 5, 2, 3\)"),
        ((0, 2, 3), None, None, "expected at least one sample"),
        ((5, 2, 3), (2, 3, 4), None, r"expected the initial h of shape \(2, 2, 4\), got \(2, 3, 4\)"),
        ((5, 2, 3), (1, 2, 4), None, r"expected the initial h of shape \(2, 2, 4\), got \(1, 2, 4\)"),
        ((5, 2, 3), (2, 2, 3), None, r"expected the initial h of shape \(2, 2, 4\), got \(2, 2, 3\)"),
        ((5, 2, 3), (2, 4), None, r"expected the initial h of shape \(2, 2, 4\), got \(2, 4\)"),
        ((5, 3), (2, 1, 4), None, r"expected the initial h of shape \(2, 4\), got \(2, 1, 4\)"),
        ((5, 2, 3), None, [5], r"expected lengths as integers of shape \(2,\), got int64 of shape \(1,\)"),
        ((5, 2, 3), None, [5.0, 2.0], r"expected lengths as integers of shape \(2,\), got float64"),
        ((5, 2, 3), None, [5, 0], "expected lengths from 1 to 5, got 0 to 5"),
        ((5, 2, 3), None, [6, 2], "expected lengths from 1 to 5, got 2 to 6"),
        ((5, 3), None, [5], r"expected lengths as integers of shape \(\), got int64 of shape \(1,\)"),
    ],
)
def test_inputs_are_checked_before_anything_is_kept(cls, x, hx, lengths, message):
    layer = cls(3, 4, 2, dropout=0.5, rng=0)
    state = layer.between.rng.bit_generator.state
    hx = None if hx is None else (np.ones(hx), np.ones(hx)) if cls is LSTM else np.ones(hx)
    with pytest.raises(LayerError, match=message):
        layer.forward(np.ones(x), hx, lengths=lengths)
    assert "_stack" not in vars(layer)
    assert layer.between.rng.bit_generator.state == state


@pytest.mark.parametrize("cls", CELLS)
@pytest.mark.parametrize(
    ("x", "hx", "message"),
    [
        ((2, 4), None, r"expected x of shape \(N, 3\) or \(3,\), got \(2, 4\)"),
        ((5, 2, 3), None, r"expected x of shape \(N, 3\) or \(3,\), got \(5, 2, 3\)"),
        ((), None, r"expected x of shape \(N, 3\) or \(3,\), got \(\)"),
        ((2, 3), (3, 4), r"expected the initial h of shape \(2, 4\), got \(3, 4\)"),
        ((3,), (1, 4), r"expected the initial h of shape \(4,\), got \(1, 4\)"),
    ],
)
def test_inputs_of_cells_are_checked(cls, x, hx, message):
    layer = cls(3, 4)
    hx = None if hx is None else (np.ones(hx), np.ones(hx)) if cls is LSTMCell else np.ones(hx)
    with pytest.raises(LayerError, match=message):
        layer.forward(np.ones(x), hx)
    assert "_stack" not in vars(layer)


def test_an_lstm_wants_two_states():
    x = np.ones((5, 2, 3))
    for layer, one in [(LSTM(3, 4), np.ones((1, 2, 4))), (Unroll(LSTMCell(3, 4)), np.ones((2, 4)))]:
        for hx, got in [(one, "a ndarray"), ((one,), "a tuple of 1"), ([one] * 3, "a list of 3")]:
            with pytest.raises(LayerError, match=rf"expected hx as a tuple \(h, c\), got {got}"):
                layer.forward(x, hx)
        layer.forward(x, [one, one])
    with pytest.raises(LayerError, match=r"expected the initial c of shape \(1, 2, 4\), got \(1, 2, 2\)"):
        LSTM(3, 4).forward(x, (np.ones((1, 2, 4)), np.ones((1, 2, 2))))


@pytest.mark.parametrize("cls", STACKS)
def test_dtypes_of_the_input(cls):
    """Integers and wider floats are cast; narrower ones are refused, as in torch."""
    single, double = cls(3, 4, rng=0), cls(3, 4, rng=0, dtype=np.float64)
    x = np.arange(12).reshape(2, 2, 3)
    assert single(x).dtype == single(x.astype(np.float64)).dtype == np.float32
    assert double(x.tolist()).dtype == np.float64
    with pytest.raises(LayerError, match=r"expected x of float64.*got float32; use x.astype\('float64'\)"):
        double(x.astype(np.float32))
    assert single(x, *([(np.zeros((1, 2, 4)),) * 2] if cls is LSTM else [np.zeros((1, 2, 4))])).dtype == np.float32
