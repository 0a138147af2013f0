"""Activations, shapes, distances and dropout with drawn arguments: where torch takes them we agree, else we refuse."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backhand.layers
from backhand.layers import LayerError
from tests.cases import Case
from tests.conftest import need

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::UserWarning")]
torch = need("torch")

from tests import parity  # noqa: E402


def drawn(examples):
    return settings(max_examples=examples, deadline=None, derandomize=True)


def same_or_refused(case):
    """Agree with torch, or refuse what torch refuses, where the constructor or the forward does. True if taken."""
    try:
        theirs = parity.twin(case).train(not case.eval)
        theirs(*(torch.from_numpy(np.array(x)) for x in case.arrays()))
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        try:
            layer = case.build()
        except (ValueError, TypeError):
            return False
        with pytest.raises(LayerError):
            layer(*case.arrays())
        assert not layer.__dict__.get("_stack")
        return False
    parity.drawn(case)
    return True


sizes = st.integers(1, 5)
shapes = st.lists(sizes, max_size=5).map(tuple)
number = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.5]), st.floats(-3, 3, allow_subnormal=False))
positive = st.floats(0.05, 4)
values = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 3.0, -3.0, 6.0, 0.5, -0.5, 1e-8, -1e-8, 40.0, -40.0]), st.floats(-12, 12)
)
vectors = st.lists(values, min_size=1, max_size=8).map(np.array)

ARGUMENTS = {
    **dict.fromkeys(
        ["ReLU", "ReLU6", "SELU", "SiLU", "Mish", "LogSigmoid", "Sigmoid", "Tanh", "Tanhshrink", "Softsign"], ()
    ),
    **dict.fromkeys(["Hardsigmoid", "Hardswish"], ()),
    "LeakyReLU": (number,),
    "ELU": (number,),
    "CELU": (st.one_of(positive, st.just(0.0)),),
    "GELU": (st.sampled_from(["none", "tanh", "none", "tanh", "exact"]),),
    "Softplus": (positive, st.floats(-3, 30)),
    "Hardtanh": (number, number),
    "Hardshrink": (number,),
    "Softshrink": (number,),
    "Threshold": (number, number),
    "PReLU": (st.just(1), number),
}


@drawn(450)
@given(data=st.data(), name=st.sampled_from(sorted(ARGUMENTS)))
def test_any_activation(data, name):
    arguments = tuple(data.draw(each) for each in ARGUMENTS[name])
    x = data.draw(st.one_of(vectors, shapes))
    same_or_refused(Case(getattr(backhand.layers, name), arguments, [x]))


@drawn(60)
@given(shape=shapes, n=st.integers(1, 4), init=number)
def test_any_prelu(shape, n, init):
    same_or_refused(Case(backhand.layers.PReLU, (n, init), [shape]))


@drawn(60)
@given(shape=shapes, lower=number, upper=number, training=st.booleans())
def test_any_rrelu(shape, lower, upper, training):
    upper = lower if training else upper  # only a range of one slope is certain in training
    same_or_refused(Case(backhand.layers.RReLU, (lower, upper), [shape], eval=not training))


@drawn(150)
@given(
    shape=shapes,
    dim=st.one_of(st.none(), st.integers(-5, 4)),
    name=st.sampled_from(["Softmax", "Softmin", "LogSoftmax", "Softmax2d", "GLU"]),
    scale=st.sampled_from([1.0, 30.0, 1e4]),
)
def test_any_softmax_and_glu(shape, dim, name, scale):
    arguments = () if name == "Softmax2d" else (dim if name != "GLU" or dim is not None else -1,)
    if name == "GLU" and shape and arguments[0] in range(len(shape)):
        shape = tuple(n * (1 + (i == arguments[0])) for i, n in enumerate(shape))
    x = np.random.default_rng(0).standard_normal(shape) * scale
    same_or_refused(Case(getattr(backhand.layers, name), arguments, [np.array(x)]))


@drawn(100)
@given(
    shape=shapes,
    p=st.sampled_from([0.0, 0.3, 1.0]),
    training=st.booleans(),
    name=st.sampled_from(["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]),
)
def test_any_dropout(shape, p, training, name):
    training = training and p in (0.0, 1.0)  # what is left to chance has no twin
    same_or_refused(Case(getattr(backhand.layers, name), (p,), [shape], eval=not training))


@st.composite
def split_axes(draw):
    """A shape, one of its axes, and sizes that multiply up to it, or nearly."""
    parts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    shape = list(draw(st.lists(sizes, min_size=1, max_size=4)))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    shape[axis] = math.prod(parts)
    for i in range(len(parts)):
        if draw(st.integers(0, 4)) == 0:
            parts[i] = draw(st.sampled_from([-1, -1, parts[i] + 1, -2]))
    return tuple(shape), draw(st.sampled_from([axis, axis, axis, axis, 5])), tuple(parts)


@drawn(120)
@given(drawn=split_axes())
def test_any_unflatten(drawn):
    shape, axis, parts = drawn
    same_or_refused(Case(backhand.layers.Unflatten, (axis, parts), [shape]))


@drawn(80)
@given(drawn=split_axes(), order=st.randoms(use_true_random=False))
def test_any_reshape_and_permute(drawn, order):
    shape, _, parts = drawn
    x = np.random.default_rng(0).standard_normal(shape)
    target = (*shape[:1], *parts, -1)
    dims = [d - order.randint(0, 1) * len(shape) for d in range(len(shape))]
    order.shuffle(dims)
    pairs = [
        (lambda: backhand.layers.Reshape(*target), lambda t: t.reshape(target)),
        (lambda: backhand.layers.Permute(*dims), lambda t: t.permute(dims)),
    ]
    for ours, theirs in pairs:
        tensor = torch.from_numpy(x.copy()).requires_grad_()
        try:
            y = theirs(tensor)
        except RuntimeError:
            with pytest.raises(ValueError, match="expected"):
                ours()(x)
            continue
        layer = ours()
        np.testing.assert_array_equal(layer(x), y.detach().numpy())
        dout = np.random.default_rng(1).standard_normal(y.shape)
        y.backward(torch.from_numpy(dout))
        np.testing.assert_array_equal(layer.backward(dout), tensor.grad.numpy())


@drawn(120)
@given(
    batch=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    c=st.integers(1, 12),
    h=st.integers(1, 6),
    w=st.integers(1, 6),
    r=st.integers(1, 3),
    name=st.sampled_from(["PixelShuffle", "PixelUnshuffle", "ChannelShuffle"]),
    fits=st.sampled_from([True, True, True, False]),
)
def test_any_shuffle(batch, c, h, w, r, name, fits):
    if fits:
        c, h, w = {"PixelShuffle": (c * r * r, h, w), "PixelUnshuffle": (c, h * r, w * r)}.get(name, (c * r, h, w))
    same_or_refused(Case(getattr(backhand.layers, name), (r,), [(*batch, c, h, w)]))


@st.composite
def broadcasting(draw):
    """Two shapes that broadcast, or nearly."""
    common = draw(st.lists(st.integers(1, 4), max_size=4))
    pair = []
    for _ in range(2):
        shape = [draw(st.sampled_from([n, n, n, 1])) for n in common]
        pair.append(tuple(shape[draw(st.sampled_from([0, 0, 0, 1])) :]))
    if draw(st.integers(0, 7)) == 0:
        pair[0] = (*pair[0], 3)
    return pair


@drawn(150)
@given(pair=broadcasting(), dim=st.integers(-4, 3), eps=st.sampled_from([1e-8, 1e-8, 0.1, 2.0]))
def test_any_cosine_similarity(pair, dim, eps):
    same_or_refused(Case(backhand.layers.CosineSimilarity, (dim, eps), pair))


@drawn(150)
@given(
    pair=broadcasting(),
    p=st.one_of(st.sampled_from([0, 1, 2, np.inf, -np.inf]), st.floats(-3, 5, allow_subnormal=False)),
    eps=st.sampled_from([1e-6, 0.0, 0.3]),
    keepdim=st.booleans(),
)
def test_any_pairwise_distance(pair, p, eps, keepdim):
    p = p if abs(p) > 0.2 or p == 0 else 0.2  # a root of that order loses the digits that are compared
    same_or_refused(Case(backhand.layers.PairwiseDistance, (p, eps, keepdim), pair))


@drawn(60)
@given(
    batch=st.lists(st.integers(1, 3), max_size=3).map(tuple),
    m=sizes,
    n=sizes,
    k=sizes,
    bias=st.booleans(),
    wrong=st.sampled_from([0, 0, 0, 1]),
)
def test_any_bilinear(batch, m, n, k, bias, wrong):
    same_or_refused(Case(backhand.layers.Bilinear, (m, n, k, bias), [(*batch, m), (*batch, n + wrong)]))
