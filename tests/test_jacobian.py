"""Jacobians and Hessians against closed forms, against products, and against torch."""

import numpy as np
import pytest

from backhand.inspection import LossByInput, LossByParameters, hessian, hvp, jacobian, jvp, vjp
from backhand.inspection.gradient_check import in_float64, leaves, map_leaves
from backhand.layers import (
    GRU,
    LSTM,
    RNN,
    Add,
    BatchNorm1d,
    Conv1d,
    Copy,
    Dropout,
    Embedding,
    Exp,
    Flatten,
    Layer,
    LayerNorm,
    Linear,
    MaxPool2d,
    Multiply,
    ReLU,
    Softmax,
    Tanh,
)
from backhand.losses import CrossEntropyLoss, Loss, MSELoss
from backhand.models import Sequential
from tests.cases import families
from tests.looking import untouched, used

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4))
SMALL = [
    case
    for case in families("CASES")
    if not issubclass(case.cls, Loss) and all(isinstance(s, tuple) and np.prod(s) <= 60 for s in case.inputs)
]


# ---------------------------------------------------------------------- closed forms


def test_softmax_is_diag_p_minus_p_p():
    x = X[0]
    p = np.exp(x) / np.exp(x).sum()
    found = jacobian(Softmax(0), x)
    np.testing.assert_allclose(found.matrix, np.diag(p) - np.outer(p, p), atol=1e-15)
    assert found.structure.kind == "dense" and found.zeros == 0
    assert jacobian(Softmax(1), X).structure.kind == "block-diagonal"
    assert jacobian(Softmax(1), X).structure.blocks.shape == (3, 4, 4)
    assert jacobian(Softmax(1), RNG.standard_normal((2, 3, 4))).structure.axes == (0, 2)


def test_relu_is_a_diagonal_of_ones_and_zeros():
    found = jacobian(ReLU(), np.array([1.0, -2, 3, -1]))
    np.testing.assert_array_equal(found.matrix, np.diag([1, 0, 1, 0]))
    assert found.structure.kind == "diagonal" and found.zeros == 14 / 16
    assert "4 x 4, diagonal; 88% zeros" in str(found) and "[[1. 0. 0. 0.]" in str(found)
    np.testing.assert_array_equal(found.product([5, 6, 7, 8]), [5, 0, 7, 0])


def test_linear_is_its_weight_again_for_every_sample():
    layer = in_float64(Linear(4, 2, rng=0))
    found = jacobian(layer, X)
    assert found.shape == (6, 12) and found.structure.axes == (0,)
    np.testing.assert_array_equal(found.structure.blocks, [layer.weight.data] * 3)
    assert "3 blocks of 2 x 4, one per sample, all equal; 67% zeros" in str(found)
    by_weight = jacobian(layer, X, by="weight")
    wanted = np.einsum("ni,op->nopi", X, np.eye(2)).reshape(6, 8)
    np.testing.assert_allclose(by_weight.matrix, wanted)
    assert by_weight.difference < 1e-14 and by_weight.structure.axes == () and "by weight (2, 4)" in str(by_weight)
    np.testing.assert_array_equal(jacobian(layer, X, by="bias").matrix, np.tile(np.eye(2), (3, 1)))


def test_layernorm_takes_out_the_mean_and_itself():
    x = X[0]
    layer = in_float64(LayerNorm(4, eps=0.0))
    xhat = (x - x.mean()) / x.std()
    wanted = (np.eye(4) - 1 / 4 - np.outer(xhat, xhat) / 4) / x.std()
    np.testing.assert_allclose(jacobian(layer, x).matrix, wanted, atol=1e-14)


def test_what_depends_on_what():
    kinds = {
        "identity": (Flatten(), RNG.standard_normal((2, 3, 2))),
        "selection": (MaxPool2d(2), RNG.standard_normal((1, 2, 4, 4))),
        "block-diagonal": (BatchNorm1d(4), X),
        "triangular": (RNN(3, 4, rng=0), RNG.standard_normal((5, 3))),
        "zero": (ReLU(), -np.ones(3)),
        "dense": (Sequential(Flatten(0, 1), Linear(12, 2, rng=0)), X),
        "sparse": (Conv1d(1, 1, 2, rng=0), RNG.standard_normal((1, 9))),
    }
    found = {kind: jacobian(layer, x).structure for kind, (layer, x) in kinds.items()}
    assert {kind: each.kind for kind, each in found.items()} == {kind: kind for kind in kinds}
    assert found["block-diagonal"].axes == (1,)  # BatchNorm's features do not see each other, its samples do
    assert found["triangular"].causal == (0,) and "causal along axis 0" in str(found["triangular"])
    batch = jacobian(GRU(2, 3, rng=0), RNG.standard_normal((4, 2, 2))).structure
    assert batch.axes == (1,) and batch.causal == (0,)
    assert jacobian(RNN(3, 4, bidirectional=True, rng=0), RNG.standard_normal((5, 3))).structure.kind == "dense"


def test_several_inputs_and_outputs():
    found = jacobian(Multiply(), (X, 2 * X), by=1)
    np.testing.assert_array_equal(found.matrix, np.diag(X.reshape(-1)))
    found = jacobian(Copy(2), X[0])
    np.testing.assert_array_equal(found.matrix, np.vstack([np.eye(4)] * 2))
    lstm = LSTM(2, 3, return_state=True, rng=0)
    assert jacobian(lstm, RNG.standard_normal((4, 2))).shape == (12 + 3 + 3, 8)


# ---------------------------------------------------------------------- the refusal does the arithmetic


def test_a_jacobian_that_is_too_large_is_refused_with_the_arithmetic():
    with pytest.raises(ValueError) as caught:
        jacobian(ReLU(), np.zeros((64, 4096), np.float32))
    message = str(caught.value)
    assert "262,144 x 262,144 x 4 bytes = 256 GiB" in message
    assert "in 1 MiB: vjp(layer, x, dout)" in message
    assert jacobian(ReLU(), X, limit=144).shape == (12, 12)
    with pytest.raises(ValueError, match=r"12 x 12 x 8 bytes = 1.1 KiB.*limit=143"):
        jacobian(ReLU(), X, limit=143)


def test_what_cannot_be_differentiated():
    with pytest.raises(ValueError, match=r"by to be a parameter \('weight', 'bias'\), got 'wait'"):
        jacobian(Linear(4, 2), X, by="wait")
    with pytest.raises(ValueError, match=r"number of an array \[0, 1\], got 2"):
        jacobian(Add(), (X, X), by=2)
    with pytest.raises(ValueError, match="backward gives None"):
        jacobian(Embedding(5, 2, rng=0), np.array([1, 2]))
    with pytest.raises(ValueError, match="no derivative"):
        jacobian(Flatten(), np.ones((2, 3, 4), int))
    with pytest.raises(ValueError, match=r"v of the shape of x, \(3, 4\), got \(4,\)"):
        jvp(ReLU(), X, X[0])
    with pytest.raises(ValueError, match=r"a tuple of 2, got a tuple of 1"):
        jvp(Add(), (X, X), (X,))


# ---------------------------------------------------------------------- products


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_all_three_ways_agree_and_change_nothing(case):
    x = case.arrays()
    layer = used(case.build(), *x)
    rng = np.random.default_rng(3)
    with untouched(layer):
        explicit = jacobian(layer, x, limit=20_000)
        y = in_float64(layer).forward(*x)
        dout = map_leaves(y, lambda leaf: rng.standard_normal(np.shape(leaf)))
        dx = vjp(layer, x, dout)
        v = rng.standard_normal(x[0].shape)
        along = jvp(layer, x, (v, *(None for _ in x[1:])))
    flat = np.concatenate([np.reshape(d, -1) for _, d in leaves(dout)])
    first = dx[0] if len(x) > 1 else dx
    np.testing.assert_allclose(explicit.product(flat), first, rtol=1e-9, atol=1e-12)
    jv = np.concatenate([np.reshape(d, -1) for _, d in leaves(along)])
    np.testing.assert_allclose(explicit.matrix @ v.reshape(-1), jv, rtol=1e-6, atol=1e-7)
    assert explicit.difference < 1e-10


def test_dropout_draws_the_same_every_time():
    layer = Dropout(0.5, rng=0)
    found = jacobian(layer, X)
    np.testing.assert_array_equal(found.matrix.diagonal().reshape(X.shape), vjp(layer, X, np.ones(X.shape)))
    np.testing.assert_allclose(jvp(layer, X, X), X * found.matrix.diagonal().reshape(X.shape))


def test_buffers_are_put_back_before_each_forward():
    class Growing(Layer):
        """Every forward multiplies by one more."""

        buffer_names = ("times",)

        def __init__(self):
            self.times = np.array(1)

        def forward(self, x):
            self.save(int(self.times))
            y = x * int(self.times)
            self.times += 1
            return y

        def backward(self, dout):
            (times,) = self.saved()
            return dout * times

    layer = Growing()
    np.testing.assert_array_equal(jacobian(layer, X[0]).matrix, np.eye(4))
    np.testing.assert_allclose(jvp(layer, X, X), X)
    assert layer.times == 1


def test_a_layer_that_writes_into_its_input_spoils_nothing():
    class InPlace(Tanh):
        def forward(self, x):
            x *= 2
            return super().forward(x)

        def backward(self, dout):
            return 2 * super().backward(dout)

    x = X[0].copy()
    slope = 2 - 2 * np.tanh(2 * x) ** 2
    np.testing.assert_allclose(jacobian(InPlace(), x).matrix.diagonal(), slope)
    np.testing.assert_allclose(jvp(InPlace(), x, x), slope * x, rtol=1e-8)
    f = LossByInput(InPlace(), MSELoss(reduction="sum"), 0 * x)
    assert f(x)[0] == f(x)[0] == (np.tanh(2 * x) ** 2).sum() and np.array_equal(x, X[0])


def test_jvp_in_float64_whatever_the_layer_is_in():
    layer = Linear(4, 2, rng=0)
    v = RNG.standard_normal(X.shape)
    along = jvp(layer, 1000 * X.astype(np.float32), v)
    assert along.dtype == np.float64 and layer.weight.dtype == np.float32
    np.testing.assert_allclose(along, v @ layer.weight.data.astype(np.float64).T, rtol=1e-7, atol=1e-9)
    np.testing.assert_array_equal(jvp(layer, X, 0 * X), 0)


# ---------------------------------------------------------------------- second derivatives


def small_net():
    return Sequential(Linear(4, 3, rng=0), Tanh(), Linear(3, 2, rng=1)), np.array([0, 1, 1])


def test_hessians_with_closed_forms():
    a = RNG.standard_normal((4, 4))
    found = hessian(lambda x: (x @ a @ x / 2, (a + a.T) @ x / 2), X[0])
    np.testing.assert_allclose(found.matrix, (a + a.T) / 2, atol=1e-9)
    assert found.asymmetry < 1e-9 and found.value == X[0] @ a @ X[0] / 2
    assert hessian(lambda x: (0.0, a @ x), X[0]).asymmetry > 0.1  # no loss has this gradient
    np.testing.assert_allclose(hvp(lambda x: (0.0, a @ x), X[0], X[1]), a @ X[1], atol=1e-9)
    found = hessian(lambda x: (np.exp(x).sum(), np.exp(x)), X)
    assert found.structure.kind == "diagonal" and found.shape == (3, 4)
    assert "12 up, 0 down, 0 flat" in str(found) and "diagonal" in str(found)
    layer = in_float64(Exp())
    np.testing.assert_allclose(
        hessian(LossByInput(layer, MSELoss(reduction="sum"), 0 * X), X).matrix.diagonal(),
        4 * np.exp(2 * X).reshape(-1),
        rtol=1e-8,
    )


def test_the_hessian_by_the_input_is_block_diagonal_per_sample():
    model, y = small_net()
    loss = CrossEntropyLoss()
    with untouched(model, loss):
        found = hessian(LossByInput(model, loss, y), X)
    assert found.structure.kind == "block-diagonal" and found.structure.axes == (0,)
    v = RNG.standard_normal(X.shape)
    product = hvp(LossByInput(model, loss, y), X, v)
    np.testing.assert_allclose(product.reshape(-1), found.matrix @ v.reshape(-1), atol=1e-8)


def test_the_hessian_by_the_parameters():
    model, y = small_net()
    loss = CrossEntropyLoss()
    with untouched(model, loss):
        f = LossByParameters(model, loss, X, y)
        found = hessian(f, f.start)
    assert found.shape == (23,) and found.asymmetry < 1e-7
    v = {"0.weight": RNG.standard_normal((3, 4))}
    product = hvp(f, f.start, f.join(v))
    np.testing.assert_allclose(product, found.matrix @ f.join(v), atol=1e-8)
    assert f.split(product)["2.bias"].shape == (2,)
    np.testing.assert_array_equal(f.split(f.join(v))["0.weight"], v["0.weight"])
    with pytest.raises(ValueError, match=r"got \['3.weight'\]"):
        f.join({"3.weight": 0})
    linear = in_float64(Linear(4, 1, bias=False, rng=0))
    f = LossByParameters(linear, MSELoss(), X, np.zeros((3, 1)))
    np.testing.assert_allclose(hessian(f, f.start).matrix, 2 / 3 * X.T @ X, atol=1e-9)


def test_dropout_is_the_same_at_both_ends_of_a_difference():
    model = Sequential(Dropout(0.5, rng=0), Linear(4, 2, rng=0), BatchNorm1d(2))
    f = LossByParameters(model, MSELoss(), X, np.zeros((3, 2)))
    assert f(f.start)[0] == f(f.start)[0] and hessian(f, f.start).asymmetry < 1e-6


def test_a_hessian_that_is_too_large_and_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"40,000 x 40,000 x 8 bytes = 11.9 GiB.*312.5 KiB: hvp"):
        hessian(lambda x: (0.0, x), np.zeros(40_000))
    with pytest.raises(ValueError, match=r"gradient of shape \(3, 4\)\), got \(4,\)"):
        hessian(lambda x: (0.0, x[0]), X)
    with pytest.raises(ValueError, match=r"v of the shape of x, \(3, 4\), got \(4,\)"):
        hvp(lambda x: (0.0, x), X, X[0])


# ---------------------------------------------------------------------- parity


def test_jacobians_and_hessians_are_those_of_torch():
    torch = pytest.importorskip("torch")
    functional = torch.autograd.functional
    x = torch.tensor(X)
    for ours, theirs in [
        (Softmax(1), torch.nn.Softmax(1)),
        (LayerNorm(4), torch.nn.LayerNorm(4)),
        (BatchNorm1d(4), torch.nn.BatchNorm1d(4)),
        (Tanh(), torch.nn.Tanh()),
    ]:
        wanted = functional.jacobian(theirs.double(), x).reshape(12, 12)
        np.testing.assert_allclose(jacobian(in_float64(ours), X).matrix, wanted, atol=1e-12)
    model, y = small_net()
    model = in_float64(model)
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2)).double()
    theirs.load_state_dict({name: torch.tensor(array) for name, array in model.state_dict().items()})
    target = torch.tensor(y)

    def by_input(z):
        return torch.nn.functional.cross_entropy(theirs(z), target)

    wanted = functional.hessian(by_input, x).reshape(12, 12)
    np.testing.assert_allclose(hessian(LossByInput(model, CrossEntropyLoss(), y), X).matrix, wanted, atol=1e-8)
    f = LossByParameters(model, CrossEntropyLoss(), X, y)
    shapes = [(name, p.shape, p.numel()) for name, p in theirs.named_parameters()]

    def by_parameters(w):
        parts = torch.split(w, [n for _, _, n in shapes])
        named = {name: part.reshape(shape) for (name, shape, _), part in zip(shapes, parts, strict=True)}
        return torch.nn.functional.cross_entropy(torch.func.functional_call(theirs, named, x), target)

    wanted = functional.hessian(by_parameters, torch.tensor(f.start))
    np.testing.assert_allclose(hessian(f, f.start).matrix, wanted, atol=1e-8)
    v = RNG.standard_normal(f.start.shape)
    _, wanted = functional.vhp(by_parameters, torch.tensor(f.start), torch.tensor(v))
    np.testing.assert_allclose(hvp(f, f.start, v), wanted, atol=1e-8)
