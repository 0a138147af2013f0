"""The fast recurrent layers agree with the plain equations, and it is the fast path that is taken."""

import numpy as np
import pytest

from backhand.inspection import check_layer
from backhand.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, recurrent_steps
from backhand.layers.packing import Packing
from backhand.layers.thin_product import SMALL, ThinProduct
from tests.plain import recurrent as plain

KINDS = [(RNN, {}), (RNN, {"nonlinearity": "relu"}), (LSTM, {}), (LSTM, {"proj_size": 32}), (GRU, {})]
TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def close(got, wanted, tolerance):
    return np.abs(got - wanted).max() <= tolerance * np.abs(wanted).max()


# ---------------------------------------------------------------------- the product of a few rows


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n", [1, 2, 7, 50])
@pytest.mark.parametrize(("blocks", "k", "m"), [(1, 512, 128), (4, 128, 128), (4, 100, 100), (1, 40, 7), (3, 5, 1)])
def test_a_thin_product_is_the_product(blocks, k, m, n, dtype):
    rows, matrix = normal(n, k).astype(dtype), normal(blocks, k, m, seed=1).astype(dtype)
    for given in (matrix, np.ascontiguousarray(matrix.swapaxes(1, 2)).swapaxes(1, 2)):
        product = ThinProduct(given, n)
        y = np.full((blocks, n + 3, m), np.nan, dtype)[:, :n] if n > 1 else np.full((blocks, n, m), np.nan, dtype)
        product.times(rows, product.matrix, product.into(y))
        assert close(y, rows @ matrix, TOLERANCE[dtype])


def test_a_thin_product_goes_in_slabs_that_need_no_copy():
    assert ThinProduct(np.ones((4, 128, 128)), 50).matrix.shape == (4, 2, 128, 64)
    assert ThinProduct(np.ones((1, 512, 128)), 50).matrix.shape == (1, 4, 512, 32)
    assert ThinProduct(np.ones((4, 100, 100)), 50).matrix.shape == (4, 2, 100, 50)
    assert ThinProduct(np.ones((4, 128, 128)), SMALL).matrix.shape == (4, 1, 128, 128)  # too many rows for it to matter
    one = ThinProduct(np.ones((4, 128, 128)), 1)
    assert one.times is np.dot
    assert one.matrix.shape == (128, 512)


# ---------------------------------------------------------------------- whole layers


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 50])
@pytest.mark.parametrize(("cls", "extra"), KINDS)
def test_a_layer_computes_the_equations(cls, extra, batch, bias, dtype):
    layer = cls(9, 64, bias=bias, rng=0, dtype=dtype, **extra)
    x = normal(6, batch, 9).astype(dtype)
    states = [normal(batch, size, seed=i + 1).astype(dtype) for i, size in enumerate([layer.output_size, 64])]
    states = states[: 2 if cls is LSTM else 1]
    wanted = getattr(plain, cls.__name__.lower())(layer, x, *states)
    got = layer(x, tuple(s[None] for s in states) if cls is LSTM else states[0][None])
    assert close(got, wanted, TOLERANCE[dtype])
    evaluated = layer.eval()(x, tuple(s[None] for s in states) if cls is LSTM else states[0][None])
    assert np.array_equal(got, evaluated)


@pytest.mark.parametrize("lengths", [None, [6, 6, 4, 4, 4, 1, 3]])
@pytest.mark.parametrize(("cls", "extra"), KINDS[:3] + KINDS[4:])
def test_the_gradient_does_not_depend_on_how_many_steps_are_prepared_at_a_time(cls, extra, lengths, monkeypatch):
    x, dy = normal(6, 7, 3), normal(6, 7, 8, seed=1)
    results = []
    for most in (1, 3 * 7 * 4, 1 << 20):
        monkeypatch.setattr(recurrent_steps, "IN_CACHE", most)
        layer = cls(3, 4, bidirectional=True, rng=0, dtype=np.float64, **extra)
        layer(x, lengths=lengths)
        results.append([layer.backward(dy), *(p.grad for p in layer.parameters())])
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("cls", "extra"), KINDS)
def test_gradients_where_the_products_go_in_slabs(cls, extra, batch):
    extra = {**extra, "proj_size": 1} if "proj_size" in extra else extra
    check_layer(cls(2, 32, rng=0, **extra), normal(3, batch, 2))


# ---------------------------------------------------------------------- the data's gradient


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cls", [RNN, LSTM, GRU])
def test_the_gradient_by_the_data_can_be_left_out(cls, bidirectional):
    x, wanted = normal(5, 2, 3), []
    for needed in (True, False):
        layer = cls(3, 4, 2, bidirectional=bidirectional, rng=0, dtype=np.float64).input_requires_grad_(needed)
        h = np.zeros((4 if bidirectional else 2, 2, 4))
        y = layer(x, (h, h) if cls is LSTM else h)
        dx, dhx = layer.backward(np.ones_like(y))
        assert (dx is None) is not needed
        wanted.append([*(dhx if cls is LSTM else [dhx]), *(p.grad for p in layer.parameters())])
        layer(x)
        assert (layer.backward(np.ones_like(y)) is None) is not needed
    for a, b in zip(*wanted, strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("cls", [RNNCell, LSTMCell, GRUCell])
def test_a_cell_can_leave_it_out_too(cls):
    cell = cls(3, 4, rng=0).input_requires_grad_(False)
    y = cell(np.ones((2, 3)))
    assert cell.backward(y) is None


# ---------------------------------------------------------------------- packing


def test_runs_are_as_long_as_can_be():
    assert [(run.n, run.rows) for run in Packing(5, 3, None).runs] == [(3, slice(0, 15))]
    runs = Packing(6, 3, np.array([2, 6, 4])).runs
    assert [run.n for run in runs] == [3, 2, 2, 1, 1]  # the step after some have ended stands alone: others before it
    assert [run.rows for run in runs] == [slice(0, 6), slice(6, 8), slice(8, 10), slice(10, 11), slice(11, 12)]
    assert [run.before for run in runs] == [slice(0, 6), slice(6, 8), slice(9, 11), slice(11, 12), slice(13, 14)]


@pytest.mark.parametrize("lengths", [None, [5, 5, 5], [2, 5, 3], [1, 1, 1], [4, 1, 4]], ids=str)
def test_packing(lengths):
    steps, batch = 5, 3
    packing = Packing(steps, batch, None if lengths is None else np.array(lengths))
    lengths = lengths or [steps] * batch
    x = np.arange(1.0, 1 + steps * batch).reshape(steps, batch, 1)
    rows = packing.pack(x)
    assert len(rows) == sum(lengths)
    padded = packing.unpack(rows)
    turned = packing.unpack(packing.turn(rows))
    start = -np.arange(1.0, 1 + batch)[:, None]
    states = np.concatenate([packing.sort(start[None])[0], rows])
    before = packing.unpack(packing.before(states))
    last = packing.unsort(packing.last(states)[None])[0]
    for j, n in enumerate(lengths):
        assert np.array_equal(padded[:, j], np.where(np.arange(steps)[:, None] < n, x[:, j], 0))
        assert np.array_equal(turned[:n, j], x[:n, j][::-1])
        assert np.array_equal(before[:n, j], np.concatenate([start[j : j + 1], x[: n - 1, j]]))
        assert last[j] == x[n - 1, j]
    assert np.array_equal(packing.turn(packing.turn(rows)), rows)
