"""Losses against loops and hand-worked numbers, at extreme scores, and with targets that are wrong."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backhand.layers import LayerError
from backhand.layers.softmax import log_softmax, softmax
from backhand.losses import BCEWithLogitsLoss, CrossEntropyLoss, L1Loss, MSELoss, MultiMarginLoss, NLLLoss
from tests.cases import labels, uniform
from tests.plain.cross_entropy import cross_entropy as plain_cross_entropy

LABELLED = [CrossEntropyLoss, NLLLoss, MultiMarginLoss]
WEIGHT = np.array([0.5, 2.0, 1.0, 3.0])


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# ---------------------------------------------------------------------- by hand


def test_cross_entropy_of_known_odds():
    loss = CrossEntropyLoss()
    x = np.log([[1.0, 2.0, 5.0]])  # odds 1 : 2 : 5
    assert loss(x, [1]) == pytest.approx(math.log(4))
    np.testing.assert_allclose(loss.backward(), [[1 / 8, 2 / 8 - 1, 5 / 8]])


def test_cross_entropy_of_no_idea_is_log_c():
    assert CrossEntropyLoss()(np.zeros((3, 10)), [0, 5, 9]) == pytest.approx(math.log(10))


def test_smoothing_and_weights_by_the_loop():
    x, t, s = normal(5, 4), np.array([0, 3, -100, 1, 3]), 0.2
    for r in ("mean", "sum", "none"):
        loss = CrossEntropyLoss(WEIGHT, label_smoothing=s, reduction=r)
        losses, count = [], 0.0
        for i in range(5):
            if t[i] == -100:
                losses.append(0.0)
                continue
            logp = [x[i, c] - math.log(sum(math.exp(v) for v in x[i])) for c in range(4)]
            q = [(1 - s) * (c == t[i]) + s / 4 for c in range(4)]
            losses.append(-sum(WEIGHT[c] * q[c] * logp[c] for c in range(4)))
            count += WEIGHT[t[i]]
        wanted = {"mean": sum(losses) / count, "sum": sum(losses), "none": losses}[r]
        np.testing.assert_allclose(loss(x, t), wanted, rtol=1e-12)


def test_hinge_by_hand():
    x, t = [[1.0, 3.0, 2.5], [5.0, 0.0, 0.0]], [1, 0]  # only 2.5 against 3 is inside the margin, by 0.5
    loss = MultiMarginLoss(reduction="none")
    np.testing.assert_allclose(loss(x, t), [0.5 / 3, 0])
    np.testing.assert_allclose(loss.backward(np.ones(2)), [[0, -1 / 3, 1 / 3], [0, 0, 0]], rtol=1e-6)
    squared = MultiMarginLoss(2, weight=[1.0, 4.0, 1.0])
    assert squared(x, t) == pytest.approx(4 * 0.25 / 3 / 2)  # the mean is over the samples, whatever they weigh
    np.testing.assert_allclose(squared.backward()[0], np.array([0, -1, 1]) * 4 * 2 * 0.5 / 3 / 2, rtol=1e-6)


def test_binary_cross_entropy_of_known_odds():
    loss = BCEWithLogitsLoss(reduction="none", pos_weight=np.array(10.0), weight=np.array([1.0, 2.0]))
    x = np.log([3.0, 3.0])  # p = 3/4
    np.testing.assert_allclose(loss(x, [1, 0]), [10 * math.log(4 / 3), 2 * math.log(4)])
    np.testing.assert_allclose(loss.backward(np.ones(2)), [-10 / 4, 2 * 3 / 4])


def test_cross_entropy_over_two_classes_is_the_binary_one():
    x, t = normal(6), labels(2, 6)
    two, one = CrossEntropyLoss(), BCEWithLogitsLoss()
    assert two(np.stack([np.zeros(6), x], 1), t) == pytest.approx(one(x, t))
    np.testing.assert_allclose(two.backward()[:, 1], one.backward())


def test_squared_and_absolute_difference_by_hand():
    for cls, wanted, dx in ((MSELoss, 2.5, [1, -2]), (L1Loss, 1.5, [0.5, -0.5])):
        loss = cls()
        assert loss([2.0, 0.0], [1.0, 2.0]) == wanted
        assert loss.backward().tolist() == dx


# ---------------------------------------------------------------------- what must hold for any numbers


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 5),
    c=st.integers(1, 6),
    rest=st.lists(st.integers(1, 3), max_size=2),
    scale=st.floats(0.01, 1e4),
    s=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_softmax_minus_target(n, c, rest, scale, s, seed):
    x, t = scale * normal(n, c, *rest, seed=seed), labels(c, n, *rest, seed=seed)
    onehot = np.moveaxis(np.eye(c)[t], -1, 1)
    q = (1 - s) * onehot + s / c
    hard, soft = CrossEntropyLoss(label_smoothing=s), CrossEntropyLoss(label_smoothing=s)
    value = hard(x, t)
    assert soft(x, onehot) == pytest.approx(value, rel=1e-9, abs=1e-9)
    dx = hard.backward()
    np.testing.assert_allclose(dx, soft.backward(), atol=1e-12)
    np.testing.assert_allclose(dx, (softmax(x, 1) - q) / t.size, atol=1e-12)
    np.testing.assert_allclose(dx.sum(1), 0, atol=1e-12)  # raising all scores alike changes nothing


@pytest.mark.parametrize("more", [{}, {"weight": WEIGHT}, {"ignore_index": 1}], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_is_nll_of_log_softmax(reduction, more):
    x, t = normal(6, 4, 3), labels(4, 6, 3)
    a, b = CrossEntropyLoss(reduction=reduction, **more), NLLLoss(reduction=reduction, **more)
    np.testing.assert_allclose(a(x, t), b(log_softmax(x, 1), t))


@pytest.mark.parametrize("cls", LABELLED)
def test_unbatched_is_the_only_sample_of_a_batch(cls):
    x = normal(4)
    one, batch = cls(weight=WEIGHT), cls(weight=WEIGHT)
    assert one(x, 2) == pytest.approx(batch(x[None], [2]))
    np.testing.assert_allclose(one.backward(), batch.backward()[0])


@pytest.mark.parametrize("cls", [CrossEntropyLoss, NLLLoss])
def test_what_is_ignored_might_as_well_be_absent(cls):
    x, t = normal(6, 4), np.array([0, 9, 3, 9, 9, 1])
    some, rest = cls(WEIGHT, ignore_index=9), cls(WEIGHT)
    assert some(x, t) == pytest.approx(rest(x[t != 9], t[t != 9]))
    dx = some.backward()
    assert not dx[t == 9].any()
    np.testing.assert_allclose(dx[t != 9], rest.backward())


@pytest.mark.parametrize("cls", [CrossEntropyLoss, NLLLoss])
@pytest.mark.parametrize("s", [0, 0.3])
def test_the_mean_of_nothing_is_nan_and_its_gradient_0(cls, s):
    more = {"label_smoothing": s} if cls is CrossEntropyLoss else {}
    for r, wanted in (("mean", math.nan), ("sum", 0.0)):
        loss = cls(reduction=r, **more)
        np.testing.assert_equal(loss(normal(3, 4, dtype=np.float32), [-100] * 3), wanted)
        assert not loss.backward().any()


def test_a_forbidden_class_costs_nothing_where_it_is_ignored():
    x = np.array([[-np.inf, 0.0, 0.0], [0.0, 0.0, 0.0]])
    for loss in (CrossEntropyLoss(), NLLLoss()):
        assert np.isfinite(loss(x, [-100, 1]))
        assert np.isfinite(loss.backward()).all()


# ---------------------------------------------------------------------- extreme scores


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_scores_are_finite_and_right(dtype):
    x = np.array([[1e4, -1e4, 0], [1e4, -1e4, 0], [1e4, -1e4, 0], [-1e4, -1e4, -1e4]], dtype)
    t = np.array([0, 1, 2, 0])
    wanted = [0, 2e4, 1e4, math.log(3)]
    p = np.array([[1, 0, 0]] * 3 + [[1 / 3] * 3])
    for loss, target in (
        (CrossEntropyLoss(reduction="none"), t),
        (CrossEntropyLoss(reduction="none"), np.eye(3)[t]),
    ):
        np.testing.assert_allclose(loss(x, target), wanted, rtol=1e-6)
        np.testing.assert_allclose(loss.backward(np.ones(4)), p - np.eye(3)[t], atol=1e-7)
    smooth = CrossEntropyLoss(reduction="none", label_smoothing=0.3)
    np.testing.assert_allclose(smooth(x, t)[:2], [0.1 * 3e4, 0.7 * 2e4 + 0.1 * 3e4], rtol=1e-6)
    hinge = MultiMarginLoss(reduction="none")
    np.testing.assert_allclose(hinge(x, t), [0, (20001 + 10001) / 3, 10001 / 3, 2 / 3], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_logits_of_yes_and_no(dtype):
    x = np.array([1e4, 1e4, -1e4, -1e4, 0], dtype)
    loss = BCEWithLogitsLoss(reduction="none", pos_weight=np.array(3.0))
    np.testing.assert_allclose(loss(x, [1, 0, 1, 0, 1]), [0, 1e4, 3e4, 0, 3 * math.log(2)], rtol=1e-6)
    np.testing.assert_allclose(loss.backward(np.ones(5)), [0, 1, -3, 0, -1.5], atol=1e-7)


# ---------------------------------------------------------------------- what is refused

OK = (np.zeros((3, 4)), np.array([0, 1, 2]))


@pytest.mark.parametrize("cls", LABELLED)
@pytest.mark.parametrize(
    ("x", "target", "message"),
    [
        (OK[0], [0, 1, 4], r"expected labels from 0 to 3.*, got 4 at \[2\]"),
        (OK[0], [0, -1, 2], r"expected labels from 0 to 3.*, got -1 at \[1\]"),
        (OK[0], np.array([0, 200, 2], np.uint8), r"got 200 at \[1\]"),
        (OK[0], np.array([0, 2**64 - 1, 2], np.uint64), r"got 18446744073709551615 at \[1\]"),
        (OK[0], [0.0, 1.0, 2.0], r"expected integer labels of shape \(3,\).*, got float64 of shape \(3,\)"),
        (OK[0], [True, False, True], r"expected integer labels of shape \(3,\).*, got bool"),
        (OK[0], [0, 1], r"expected integer labels of shape \(3,\).*, got int64 of shape \(2,\)"),
        (OK[0], [[0], [1], [2]], r"expected integer labels .*, got int64 of shape \(3, 1\)"),
        (OK[0], np.eye(3, 4, dtype=int), r"expected integer labels of shape \(3,\).*, got int64 of shape \(3, 4\)"),
        (OK[0], np.zeros((4, 3)), r"expected integer labels .*, got float64 of shape \(4, 3\)"),
        (OK[0], [[0], [1, 2]], "expected target as an array, got a list of . with rows of different lengths"),
        (OK[0], None, r"expected integer labels .*, got object"),
        (OK[0], ["a", "b", "c"], "expected integer labels"),
        (np.zeros((0, 4)), np.zeros(0, int), "expected at least one sample"),
        (np.zeros((3, 0)), [0, 1, 2], "expected at least one sample"),
        (np.zeros((3, 4), complex), [0, 1, 2], "expected an array of numbers"),
    ],
)
def test_refused_before_anything_changes(cls, x, target, message):
    loss = cls(weight=np.ones(4))
    loss(*OK)
    with pytest.raises(LayerError, match=message) as caught:
        loss.forward(x, target)
    assert str(caught.value).startswith(cls.__name__)
    assert len(loss._stack) == 1
    with pytest.raises(LayerError, match="dout"):
        loss.backward(np.ones(7))
    loss.backward()
    assert not loss._stack


def test_messages_name_what_would_do():
    with pytest.raises(LayerError, match=r"labels from 0 to 3 \(or ignore_index, -100\), got 7 at \[1, 2\]"):
        CrossEntropyLoss()(np.zeros((2, 4, 3)), [[0, 1, 2], [3, 0, 7]])
    with pytest.raises(LayerError, match=r"or probabilities as floats of shape \(3, 4\), got float64 of shape \(3,\)"):
        CrossEntropyLoss()(np.zeros((3, 4)), np.zeros(3))
    with pytest.raises(LayerError, match="4 classes, one for each weight"):
        CrossEntropyLoss(np.ones(4))(np.zeros((3, 5)), [0, 1, 2])
    with pytest.raises(LayerError, match="ignore_index"):
        CrossEntropyLoss(ignore_index=0)(np.zeros((3, 4)), np.full((3, 4), 0.25))
    for cls in (CrossEntropyLoss, NLLLoss):
        with pytest.raises(LayerError, match=r"expected x of shape \(C,\)"):
            cls()(np.float64(1.0), 0)
    with pytest.raises(LayerError, match=r"x of shape \(C,\) or \(N, C\)"):
        MultiMarginLoss()(np.zeros((2, 3, 4)), np.zeros((2, 4), int))


@pytest.mark.parametrize(
    ("more", "x", "target"),
    [
        ({}, (3, 4), (3,)),
        ({}, (3, 4), (3, 1)),
        ({}, (0, 4), (0, 4)),
        ({"weight": np.ones(3)}, (3, 4), (3, 4)),
        ({"weight": np.ones((2, 3, 4))}, (3, 4), (3, 4)),  # it would blow the loss up, torch refuses too
        ({"pos_weight": np.ones((2, 3, 4))}, (3, 4), (3, 4)),
        ({"pos_weight": np.ones(4)}, (3, 1), (3, 1)),
    ],
)
def test_binary_shapes_that_do_not_fit(more, x, target):
    loss = BCEWithLogitsLoss(**more)
    with pytest.raises(LayerError, match="expected"):
        loss.forward(np.zeros(x), np.zeros(target))
    assert "_stack" not in vars(loss)


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: CrossEntropyLoss(np.ones((2, 2))), "one weight for each class"),
        (lambda: CrossEntropyLoss(np.array(1.0)), "one weight for each class"),
        (lambda: CrossEntropyLoss(["a", "b"]), "weight to be numbers"),
        (lambda: CrossEntropyLoss([]), "weight to be numbers"),
        (lambda: CrossEntropyLoss(label_smoothing=1.1), "label_smoothing"),
        (lambda: CrossEntropyLoss(label_smoothing=-0.1), "label_smoothing"),
        (lambda: CrossEntropyLoss(ignore_index=1.5), "ignore_index"),
        (lambda: CrossEntropyLoss(reduction="average"), "reduction"),
        (lambda: MultiMarginLoss(3), "p to be 1 or 2"),
        (lambda: MultiMarginLoss(margin=float("nan")), "margin"),
        (lambda: BCEWithLogitsLoss(pos_weight="much"), "pos_weight to be numbers"),
    ],
)
def test_impossible_constructor_arguments(build, problem):
    with pytest.raises(ValueError, match=problem):
        build()


# ---------------------------------------------------------------------- weights are buffers


def test_weights_stand_in_the_state_under_torchs_names():
    assert CrossEntropyLoss().state_dict() == {}
    assert list(NLLLoss([1, 2]).state_dict()) == ["weight"]
    assert list(BCEWithLogitsLoss([1.0], pos_weight=[2.0]).state_dict()) == ["weight", "pos_weight"]
    loss = MultiMarginLoss(weight=[1, 2, 3])
    loss.load_state_dict({"weight": [3.0, 2.0, 1.0]})
    assert loss.weight.tolist() == [3, 2, 1]


def test_weights_are_a_copy_and_never_change_the_dtype():
    mine = WEIGHT.copy()
    loss = CrossEntropyLoss(mine, reduction="none")
    mine[:] = 0
    assert (loss.weight == WEIGHT).all()
    x = normal(3, 4, dtype=np.float32)
    for target in ([0, 1, 2], uniform(3, 4)):
        assert loss(x, target).dtype == loss.backward(np.ones(3)).dtype == np.float32
    assert CrossEntropyLoss([0.1, 0.9]).weight.dtype == np.float32


@pytest.mark.parametrize("cls", LABELLED)
def test_no_hidden_float64(cls):
    for x, t in ((normal(4, dtype=np.float32), 1), (normal(3, 4, dtype=np.float32), [0, 1, 2])):
        loss = cls(weight=WEIGHT, reduction="none")
        y = loss(x, t)
        assert y.dtype == np.float32
        assert loss.backward(np.ones(y.shape)).dtype == np.float32
        assert isinstance(cls()(x, t), float)


def test_binary_keeps_float32():
    for shape in ((), (3,)):
        loss = BCEWithLogitsLoss(np.array(2.0), pos_weight=np.array(3.0), reduction="none")
        y = loss(np.ones(shape, np.float32), np.ones(shape))
        assert y.dtype == loss.backward(np.ones(shape)).dtype == np.float32


def test_repr_is_the_call():
    assert repr(CrossEntropyLoss(ignore_index=0, label_smoothing=0.1)) == (
        "CrossEntropyLoss(ignore_index=0, label_smoothing=0.1)"
    )
    assert repr(MultiMarginLoss(2)) == "MultiMarginLoss(p=2)"
    assert repr(NLLLoss(np.array([1.0, 2.0]))) == "NLLLoss(weight=array([1., 2.]))"


# ---------------------------------------------------------------------- beside torch


@pytest.mark.parity
@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 4),
    c=st.integers(1, 5),
    rest=st.lists(st.integers(1, 3), max_size=2),
    scale=st.sampled_from([0.1, 1.0, 100.0, 1e4]),
    smoothing=st.floats(0, 1),
    ignored=st.integers(-2, 5),
    weighted=st.booleans(),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    seed=st.integers(0, 99),
)
def test_cross_entropy_is_torchs(torch, n, c, rest, scale, smoothing, ignored, weighted, reduction, seed):
    x, t = scale * normal(n, c, *rest, seed=seed), labels(c, n, *rest, seed=seed)
    weight = uniform(c, low=0.1, high=3.0, seed=seed) if weighted else None
    more = {"ignore_index": ignored, "label_smoothing": smoothing, "reduction": reduction}
    ours = CrossEntropyLoss(weight, **more)
    theirs = torch.nn.CrossEntropyLoss(None if weight is None else torch.from_numpy(weight), **more)
    tensor = torch.from_numpy(x).requires_grad_()
    value = theirs(tensor, torch.from_numpy(t))
    np.testing.assert_allclose(ours(x, t), value.detach(), rtol=1e-9, atol=1e-9 * scale)
    dout = normal(*value.shape, seed=seed)
    value.backward(torch.from_numpy(np.asarray(dout)))
    np.testing.assert_allclose(ours.backward(dout), tensor.grad, rtol=1e-9, atol=1e-9)


# ---------------------------------------------------------------------- the short ways

LABELS = np.array([2, 0, 3, 3, 1])
SCORES = np.random.default_rng(5).standard_normal((5, 4)) * 10


def labels_in(kind):
    return LABELS.astype(kind)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("n, classes", [(1, 1), (1, 5), (7, 2), (64, 10), (300, 65), (40, 1000)])
@pytest.mark.parametrize("layout", ["C", "F", "strided"])
def test_cross_entropy_of_labels_is_the_plain_one(n, classes, dtype, tolerance, layout):
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, 2 * classes))[:, :: 2 if layout == "strided" else 1][:, :classes].astype(dtype) * 5
    x = np.asarray(x, order="F" if layout == "F" else "K")
    labels = rng.integers(0, classes, n)
    wanted, gradient = plain_cross_entropy(x, labels)
    before = x.copy()
    for loss, scores in [(CrossEntropyLoss(), x), (NLLLoss(), log_softmax(x, 1))]:
        assert loss.places(scores, labels) is not None
        assert loss.forward(scores, labels) == pytest.approx(wanted, rel=tolerance, abs=tolerance)
        dx = loss.backward()
        assert dx.dtype == dtype
        if isinstance(loss, NLLLoss):
            dx = dx - np.exp(scores) * dx.sum(1, keepdims=True)
        assert np.abs(dx - gradient).max() < tolerance
    assert np.array_equal(x, before)


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">i8"])
@pytest.mark.parametrize("cls", [CrossEntropyLoss, NLLLoss])
def test_labels_of_any_integers(cls, kind):
    loss = cls()
    wanted, dx = loss.forward(SCORES, LABELS), loss.backward()
    assert loss.places(SCORES, labels_in(kind)) is not None
    assert loss.forward(SCORES, labels_in(kind)) == wanted
    assert np.array_equal(loss.backward(), dx)


@pytest.mark.parametrize("cls", [CrossEntropyLoss, NLLLoss])
@pytest.mark.parametrize("wrong", [4, -1, -99, 2**40, -(2**63)])
def test_a_wrong_label_is_still_named(cls, wrong):
    labels = np.array([2, 0, wrong, 3, 1])
    with pytest.raises(LayerError, match=rf"labels from 0 to 3 .*got {wrong} at \[2\]"):
        cls().forward(SCORES, labels)
    with pytest.raises(LayerError, match="labels from 0 to 3"):
        cls().forward(SCORES, np.array([2, 0, 2**64 - 1, 3, 1], np.uint64))


@pytest.mark.parametrize("cls", [CrossEntropyLoss, NLLLoss])
def test_the_short_way_is_for_the_common_case_alone(cls):
    ignored = np.where(LABELS == 3, -100, LABELS)
    assert cls().places(SCORES, LABELS) is not None
    assert cls().places(SCORES, ignored) is None
    assert cls(ignore_index=3).places(SCORES, LABELS) is None
    assert cls(np.ones(4)).places(SCORES, LABELS) is None
    assert cls().places(SCORES.astype(np.float16), LABELS) is None
    assert cls().places(SCORES[..., None], LABELS[:, None]) is None
    assert cls().places(SCORES, LABELS.astype(float)) is None


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("cls", [CrossEntropyLoss, NLLLoss])
def test_the_short_way_is_the_long_one(cls, reduction):
    short, long = cls(reduction=reduction), cls(np.ones(4), reduction=reduction)
    dout = np.arange(1.0, 6.0) if reduction == "none" else 3.0
    assert np.allclose(short.forward(SCORES, LABELS), long.forward(SCORES, LABELS), rtol=1e-13)
    assert np.allclose(short.backward(dout), long.backward(dout), rtol=1e-12, atol=1e-15)


def test_two_forwards_then_two_backwards_in_the_short_way():
    loss = CrossEntropyLoss()
    loss.forward(SCORES, LABELS)
    loss.forward(2 * SCORES, LABELS[::-1])
    second, first = loss.backward(), loss.backward()
    kept = second.copy()
    assert np.abs(first - plain_cross_entropy(SCORES, LABELS)[1]).max() < 1e-15
    assert np.abs(second - plain_cross_entropy(2 * SCORES, LABELS[::-1])[1]).max() < 1e-15
    loss.forward(SCORES, LABELS)
    loss.backward()
    assert np.array_equal(kept, second)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_yes_or_no_without_weights_is_that_with_ones(reduction):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 7)) * 20, rng.random((6, 7))
    plain, weighted = BCEWithLogitsLoss(reduction=reduction), BCEWithLogitsLoss(np.ones(7), reduction=reduction)
    assert np.allclose(plain.forward(x, y), weighted.forward(x, y), rtol=1e-13)
    assert np.allclose(plain.backward(), weighted.backward(), rtol=1e-10, atol=1e-16)
    assert plain.forward(np.float32(3), np.float32(1)) > 0
    assert plain.backward().shape == ()
