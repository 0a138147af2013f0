"""The catalogue of losses by hand-worked numbers, at extreme scores, and with what does not fit."""

import math

import numpy as np
import pytest

from backhand.inspection import check_gradients
from backhand.layers import LayerError, Linear
from backhand.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    GaussianNLLLoss,
    HingeEmbeddingLoss,
    HuberLoss,
    InfoNCELoss,
    KLDivLoss,
    L1Loss,
    Loss,
    MarginRankingLoss,
    MSELoss,
    MultiLabelMarginLoss,
    MultiLabelSoftMarginLoss,
    MultiMarginLoss,
    NTXentLoss,
    PoissonNLLLoss,
    SmoothL1Loss,
    SoftMarginLoss,
    TripletMarginLoss,
)
from tests.cases import families, uniform
from tests.cases.losses_pointwise import signs


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# ---------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("loss", "inputs", "losses", "gradients"),
    [
        (HuberLoss(delta=2), [[1.0, -5.0], [0.0, 0.0]], [0.5, 2 * (5 - 1)], [[1, -2]]),
        (SmoothL1Loss(beta=2), [[1.0, -5.0], [0.0, 0.0]], [0.25, 4], [[0.5, -1]]),
        (KLDivLoss(), [np.log([0.5, 0.5]), [0.25, 0.0]], [0.25 * math.log(0.5), 0], [[-0.25, 0]]),
        (BCELoss([1.0, 3.0]), [[0.25, 0.25], [1.0, 0.0]], [math.log(4), 3 * math.log(4 / 3)], [[-4, 4]]),
        (SoftMarginLoss(), [np.log([3.0, 3.0]), [1, -1]], [math.log(4 / 3), math.log(4)], [[-0.25, 0.75]]),
        (MultiLabelSoftMarginLoss(), [np.log([[3.0, 3.0]]), [[1, 0]]], [math.log(16 / 3) / 2], [[[-1 / 8, 3 / 8]]]),
        (PoissonNLLLoss(), [np.log([2.0]), [3.0]], [2 - 3 * math.log(2)], [[-1]]),
        (PoissonNLLLoss(False, eps=0), [[2.0], [3.0]], [2 - 3 * math.log(2)], [[-0.5]]),
        (GaussianNLLLoss(), [[3.0], [1.0], [2.0]], [(math.log(2) + 2) / 2], [[1], None, [-0.25]]),
        (HingeEmbeddingLoss(), [[0.25, 0.25, 2.0], [1, -1, -1]], [0.25, 0.75, 0], [[1, -1, 0]]),
        (MarginRankingLoss(1), [[2.0, 2.0], [1.5, 1.5], [1, -1]], [0.5, 1.5], [[-1, 1], [1, -1]]),
        (MultiLabelMarginLoss(), [[0.1, 0.2, 0.4, 0.8], [3, 0, -1, 1]], 0.85, [[-0.5, 0.5, 0.5, -0.5]]),
        (CosineEmbeddingLoss(), [[3.0, 4.0], [4.0, 3.0], 1], 1 - 24 / 25, [[-0.0448, 0.0336], [0.0336, -0.0448]]),
        (
            TripletMarginLoss(eps=0),
            [[0.0, 0.0], [3.0, 4.0], [0.0, 2.0]],
            1 + 5 - 2,
            [[-0.6, -0.8 + 1], [0.6, 0.8], [0, -1]],
        ),
        (
            TripletMarginLoss(eps=0, swap=True),  # the positive is nearer to the negative than the anchor is
            [[0.0, 0.0], [3.0, 4.0], [3.0, 3.0]],
            1 + 5 - 1,
            [[-0.6, -0.8], [0.6, 0.8 - 1], [0, 1]],
        ),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Loss) else "",
)
def test_hand_worked(loss, inputs, losses, gradients):
    loss.reduction = "none"
    got = loss(*inputs)
    np.testing.assert_allclose(got, losses, rtol=1e-6, atol=1e-12)
    dx = loss.backward(np.ones(np.shape(got)))
    dx = dx if isinstance(dx, tuple) else (dx,)
    assert len(dx) == len(gradients)
    for mine, wanted in zip(dx, gradients, strict=True):
        if wanted is None:
            assert mine is None
        else:
            np.testing.assert_allclose(mine, wanted, rtol=1e-5, atol=1e-9)


def test_batchmean_is_the_mean_over_the_first_axis():
    x, y = np.log(uniform(3, 4)), uniform(3, 4, seed=1)
    total = KLDivLoss(reduction="sum")(x, y)
    loss = KLDivLoss(reduction="batchmean")
    assert loss(x, y) == pytest.approx(total / 3)
    np.testing.assert_allclose(loss.backward(), -y / 3)
    assert KLDivLoss()(x, y) == pytest.approx(total / 12)


def test_full_adds_what_no_gradient_sees():
    y = np.array([1.0, 2.0, 50.0])
    for log_input in (True, False):
        part, whole = (PoissonNLLLoss(log_input, full, reduction="none") for full in (False, True))
        extra = whole(np.ones(3), y) - part(np.ones(3), y)
        wanted = [0, *(math.lgamma(v + 1) for v in (2, 50))]
        np.testing.assert_allclose(extra, wanted, rtol=0.07)  # Stirling
        np.testing.assert_array_equal(part.backward(np.ones(3)), whole.backward(np.ones(3)))


def test_families_agree_with_each_other():
    x, y, t = normal(5, 4), normal(5, 4, seed=1), signs(5, 4)
    assert HuberLoss(delta=1e3)(x, y) == pytest.approx(MSELoss()(x, y) / 2)
    assert SmoothL1Loss(beta=0)(x, y) == L1Loss()(x, y)
    assert SmoothL1Loss(beta=0.3)(x, y) == pytest.approx(HuberLoss(delta=0.3)(x, y) / 0.3)
    assert SoftMarginLoss()(x, t) == pytest.approx(BCEWithLogitsLoss()(x, (t + 1) / 2))
    assert MultiLabelSoftMarginLoss()(x, (t + 1) / 2) == pytest.approx(SoftMarginLoss()(x, t))
    assert BCELoss()(1 / (1 + np.exp(-x)), (t + 1) / 2) == pytest.approx(SoftMarginLoss()(x, t))
    one, several = MultiMarginLoss(), MultiLabelMarginLoss()
    assert several(x, [[c, -1, -1, -1] for c in (0, 1, 2, 3, 0)]) == pytest.approx(one(x, [0, 1, 2, 3, 0]))
    np.testing.assert_allclose(one.backward(), several.backward())
    assert GaussianNLLLoss()(x, y, np.ones((5, 4))) == pytest.approx(MSELoss()(x, y) / 2)


def test_one_variance_for_all():
    x, y = normal(3, 4), normal(3, 4, seed=1)
    one, table = GaussianNLLLoss(), GaussianNLLLoss()
    assert one(x, y, 0.5) == pytest.approx(table(x, y, np.full((3, 4), 0.5)))
    (dx, _, dvar), (wanted, _, each) = one.backward(), table.backward()
    np.testing.assert_allclose(dx, wanted)
    assert dvar == pytest.approx(each.sum())
    assert dvar.shape == ()


def test_a_variance_below_eps_finds_its_way_back():
    loss = GaussianNLLLoss(eps=0.1)
    loss([3.0], [1.0], [0.0])
    assert loss.backward()[2] < 0  # descent makes it larger


def test_contrastive_by_hand():
    x, y = [[2.0, 0.0], [0.0, 3.0]], [[1.0, 0.0], [0.0, 5.0]]  # cosines 1 and 0
    assert InfoNCELoss(0.5)(x, y) == pytest.approx(math.log(1 + math.exp(-2)))
    assert NTXentLoss(0.5)(x, y) == pytest.approx(math.log(1 + 2 * math.exp(-2)))
    assert NTXentLoss()([[1.0, 2.0]], [[2.0, 1.0]]) == 0  # nobody else is there
    assert NTXentLoss(reduction="none")(x, y).shape == (4,)
    more = [*y, [1.0, 1.0]]
    assert InfoNCELoss(0.5)(x, more) > InfoNCELoss(0.5)(x, y)


@pytest.mark.parametrize("cls", [InfoNCELoss, NTXentLoss])
def test_the_length_of_a_vector_does_not_matter(cls):
    x, y = normal(4, 3), normal(4, 3, seed=1)
    a, b = cls(), cls()
    assert a(x, y) == pytest.approx(b(7 * x, y))
    dx, dy = a.backward()
    np.testing.assert_allclose(dx / 7, b.backward()[0], atol=1e-12)
    for d, z in ((dx, x), (dy, y)):
        np.testing.assert_allclose((d * z).sum(1), 0, atol=1e-12)


# ---------------------------------------------------------------------- extreme scores


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("loss", "inputs", "losses", "gradient"),
    [
        (SoftMarginLoss(), [[1e4, 1e4, -1e4], [1, -1, 1]], [0, 1e4, 1e4], [0, 1, -1]),
        (MultiLabelSoftMarginLoss(), [[1e4, 1e4, -1e4], [1, 0, 1]], 2e4 / 3, [0, 1 / 3, -1 / 3]),
        (HuberLoss(), [[1e4, -1e30], [0, 0]], [1e4 - 0.5, 1e30], [1, -1]),
        (SmoothL1Loss(beta=1e-3), [[1e4, -1e30], [0, 0]], [1e4, 1e30], [1, -1]),
        (BCELoss(), [[0.0, 1.0, 0.0], [0, 1, 1]], [0, 0, 100], [0, 0, -1e12]),
        (PoissonNLLLoss(), [[-1e4, 1e4], [1, 1]], [1e4, np.inf], [-1, np.inf]),
        (MultiLabelMarginLoss(), [[1e4, -1e4, 0], [1, -1, 0]], (20001 + 10001) / 3, [1 / 3, -2 / 3, 1 / 3]),
        (HingeEmbeddingLoss(), [[1e4, -1e4], [1, -1]], [1e4, 10001], [1, -1]),
        (GaussianNLLLoss(), [[1e4], [0], [0]], [(math.log(1e-6) + 1e14) / 2], [1e10]),
        (CosineEmbeddingLoss(), [[1e4, 0], [0, 1e4], 1], 1, [0, -1e-4]),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Loss) else "",
)
def test_extreme_scores(loss, inputs, losses, gradient, dtype):
    loss.reduction = "none"
    first = np.array(inputs[0], dtype)
    got = loss(first, *inputs[1:])
    np.testing.assert_allclose(got, losses, rtol=1e-6)
    dx = loss.backward(np.ones(np.shape(got)))
    np.testing.assert_allclose(dx[0] if isinstance(dx, tuple) else dx, gradient, rtol=1e-6, atol=1e-12)


def test_the_nearest_partner_at_a_tiny_temperature():
    x = np.eye(3, dtype=np.float32)
    for cls in (InfoNCELoss, NTXentLoss):
        loss = cls(1e-4)
        assert loss(x, np.roll(x, 1, 0)) == pytest.approx(1e4)
        assert all(np.isfinite(d).all() for d in loss.backward())


# ---------------------------------------------------------------------- no hidden float64


@pytest.mark.parametrize(
    "case", [c for c in families("CASES") if c.cls.__module__.startswith("backhand.losses")], ids=str
)
def test_float32_stays(case):
    inputs = [x.astype(np.float32) if x.dtype.kind == "f" else x for x in case.arrays()]
    loss = case.build(np.float32)
    value = loss(*inputs)
    assert isinstance(value, float) or value.dtype == np.float32
    dx = loss.backward(np.ones(np.shape(value)))  # a float64 dout changes nothing
    for d in dx if isinstance(dx, tuple) else (dx,):
        assert d is None or d.dtype == np.float32


# ---------------------------------------------------------------------- what is refused

THREE = np.zeros((3, 4))


@pytest.mark.parametrize(
    ("loss", "inputs", "problem"),
    [
        (HuberLoss(), (THREE, np.zeros(4)), r"a target of the input's shape \(3, 4\), got \(4,\)"),
        (SmoothL1Loss(), (THREE, np.zeros((3, 1))), "a target of the input's shape"),
        (KLDivLoss(), (THREE, np.zeros(3)), r"a target of the input's shape \(3, 4\), got \(3,\)"),
        (PoissonNLLLoss(), (THREE, np.zeros(3)), "a target of the input's shape"),
        (BCELoss(), (THREE - 0.1, THREE), "x between 0 and 1, got -0.1 to -0.1"),
        (BCELoss(), (np.full(2, np.nan), np.ones(2)), "x between 0 and 1, got nan"),
        (BCELoss(), (THREE, THREE + 2), "target between 0 and 1"),
        (BCELoss(np.ones(3)), (THREE, THREE), "weight of shape"),
        (MultiLabelSoftMarginLoss(), (1.0, 1.0), r"x of shape \(\.\.\., C\)"),
        (MultiLabelSoftMarginLoss(np.ones(3)), (THREE, THREE), "weight of shape"),
        (SoftMarginLoss(), (np.zeros(4), THREE), "a target of the input's shape"),
        (GaussianNLLLoss(), (THREE, THREE, np.ones(4)), r"var of x's shape \(3, 4\)"),
        (GaussianNLLLoss(), (THREE, THREE, np.ones((1, 1))), "var of x's shape"),
        (GaussianNLLLoss(), (THREE, THREE, np.array(1.0)), "var of x's shape"),
        (GaussianNLLLoss(), (THREE, THREE, -THREE - 1), "var of at least 0, got -1"),
        (GaussianNLLLoss(), (THREE, THREE, -1.0), "var of at least 0"),
        (GaussianNLLLoss(), (THREE, np.zeros(3), THREE), "a target of the input's shape"),
        (MarginRankingLoss(), (THREE, THREE, np.ones(4)), "a target of the input's shape"),
        (MarginRankingLoss(), (THREE, np.zeros((3, 3)), THREE), "x2 of the input's shape"),
        (MultiLabelMarginLoss(), (THREE, THREE), "integer classes"),
        (MultiLabelMarginLoss(), (THREE, np.zeros(4, int)), "integer classes"),
        (MultiLabelMarginLoss(), (THREE, np.full((3, 4), 4)), "classes from 0 to 3, or -1, got 4 to 4"),
        (MultiLabelMarginLoss(), (THREE, np.full((3, 4), -2)), "classes from 0 to 3, or -1"),
        (MultiLabelMarginLoss(), (np.zeros((2, 3, 4)), np.zeros((2, 3, 4), int)), r"\(C,\) or \(N, C\)"),
        (MultiLabelMarginLoss(), (THREE, [[0], [1, 2]]), "rows of different lengths"),
        (CosineEmbeddingLoss(), (THREE, THREE, 1), r"target \(N,\)"),
        (CosineEmbeddingLoss(), (THREE, np.zeros((1, 4)), np.ones(3)), "shape"),
        (CosineEmbeddingLoss(), (np.zeros(()), np.zeros(()), 1), r"x1 and x2 of shape \(N, D\)"),
        (TripletMarginLoss(), (THREE, THREE, np.zeros(4)), "anchor, positive and negative"),
        (TripletMarginLoss(), (THREE, THREE, np.zeros((3, 5))), "anchor, positive and negative of one shape"),
        (TripletMarginLoss(), (1.0, 1.0, 1.0), "anchor, positive and negative"),
        (InfoNCELoss(), (THREE, np.zeros((2, 4))), "at least as many in the second"),
        (InfoNCELoss(), (THREE, np.zeros((3, 5))), "two tables"),
        (NTXentLoss(), (THREE, np.zeros((4, 4))), "as many in the second"),
        (NTXentLoss(), (np.zeros(4), np.zeros(4)), "two tables"),
        (L1Loss(), (np.zeros((0, 4)), np.zeros((0, 4))), "at least one sample"),
        (KLDivLoss(), (np.zeros((0, 4)), np.zeros((0, 4))), "at least one sample"),
    ],
    ids=lambda x: "",
)
def test_refused_before_anything_is_saved(loss, inputs, problem):
    with pytest.raises(LayerError, match=problem) as caught:
        loss.forward(*inputs)
    assert str(caught.value).startswith(type(loss).__name__)
    assert "_stack" not in vars(loss)


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: HuberLoss(delta=0), "delta above 0, got 0"),
        (lambda: HuberLoss(delta=float("nan")), "delta above 0"),
        (lambda: SmoothL1Loss(beta=-1), "beta in"),
        (lambda: TripletMarginLoss(margin=0), "margin above 0"),
        (lambda: TripletMarginLoss(p="two"), "p to be a number"),
        (lambda: InfoNCELoss(0), "temperature above 0"),
        (lambda: NTXentLoss(-1), "temperature above 0"),
        (lambda: HingeEmbeddingLoss(float("nan")), "margin to be a number"),
        (lambda: BCELoss("a"), "weight to be numbers"),
        (lambda: HuberLoss("batchmean"), "reduction to be .mean., .sum. or .none."),
        (lambda: KLDivLoss(reduction="median"), "reduction to be .*batchmean"),
    ],
)
def test_impossible_constructor_arguments(build, problem):
    with pytest.raises(ValueError, match=problem):
        build()


# ---------------------------------------------------------------------- the target between two inputs


def test_the_gradient_check_passes_over_the_target_and_nothing_else():
    loss, inputs = GaussianNLLLoss(), (normal(3, 2), normal(3, 2, seed=1), uniform(3, 2))
    report = check_gradients(loss, *inputs)
    assert [row.name for row in report.rows] == ["dx[0]", "dx[2]"]
    assert report

    class Forgets(GaussianNLLLoss):
        def backward(self, dout=None):
            dx, _, dvar = super().backward(dout)
            return dx, None, 0.9 * dvar

    assert not check_gradients(Forgets(), *inputs)


def test_a_layer_or_loss_that_returns_none_is_still_caught():
    class Lazy(Linear):
        def backward(self, dout):
            super().backward(dout)

    assert not check_gradients(Lazy(2, 3, rng=0), normal(4, 2))

    class LazyLoss(MSELoss):
        def backward(self, dout=None):
            super().backward(dout)

    assert not check_gradients(LazyLoss(), normal(3, 2), normal(3, 2, seed=1))
