"""What the table of cases cannot say of the lookup tables: how they start, what they refuse, what they change."""

import numpy as np
import pytest

from backhand.layers import Embedding, EmbeddingBag, LayerError
from backhand.layers.embedding import scatter_add
from tests.conftest import need

ROWS = np.arange(12.0).reshape(4, 3)


def test_starts_from_the_normal_distribution_with_the_padding_row_at_zero():
    for cls in (Embedding, EmbeddingBag):
        weight = cls(500, 40, padding_idx=-3, rng=0).weight.data
        assert weight.dtype == np.float32
        assert not weight[497].any()
        rest = np.delete(weight, 497, axis=0)
        assert abs(rest.mean()) < 0.02
        assert abs(rest.std() - 1) < 0.02


def test_from_pretrained_copies_and_freezes():
    for cls in (Embedding, EmbeddingBag):
        layer = cls.from_pretrained(ROWS, padding_idx=1)
        assert not layer.weight.requires_grad
        assert layer.weight.dtype == np.float64
        np.testing.assert_array_equal(layer.weight.data, ROWS)  # the padding row too
        assert layer.weight.data is not ROWS
        assert cls.from_pretrained(ROWS, freeze=False).weight.requires_grad
        with pytest.raises(ValueError, match="expected embeddings of shape"):
            cls.from_pretrained(ROWS[0])
        with pytest.raises(ValueError, match=r"expected _weight of shape \(3, 3\), got \(4, 3\)"):
            cls(3, 3, _weight=ROWS)
    assert EmbeddingBag.from_pretrained(ROWS, mode="max", include_last_offset=True).mode == "max"


def test_backward_gives_one_gradient_for_each_input_that_was_given():
    x, offsets, w = np.array([0, 2, 2]), np.array([0, 2]), np.array([1.0, 2.0, 3.0])
    dout = np.ones((2, 3))
    bag = EmbeddingBag.from_pretrained(ROWS, mode="sum")
    bag(x[:2, None])
    assert bag.backward(dout) is None
    bag(x, offsets)
    assert bag.backward(dout) == (None, None)
    bag(x, offsets, w)
    *nothing, dw = bag.backward(dout)
    assert nothing == [None, None]
    np.testing.assert_array_equal(dw, [3.0, 21.0, 21.0])  # the sums of the rows
    bag(x[None], per_sample_weights=w[None])
    nothing, dw = bag.backward(dout[:1])
    assert nothing is None
    assert dw.shape == (1, 3)


def test_max_norm_shortens_only_the_rows_that_are_read_and_too_long():
    layer = Embedding.from_pretrained(ROWS, max_norm=5.0)
    y = layer(np.array([0, 2, 2]))
    np.testing.assert_array_equal(layer.weight.data[[0, 1, 3]], ROWS[[0, 1, 3]])  # short, unread, unread
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), [np.sqrt(5), 5, 5], rtol=1e-6)
    np.testing.assert_array_equal(layer.weight.data[2], y[1])


@pytest.mark.parametrize("cls", [Embedding, EmbeddingBag])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"num_embeddings": 0},
        {"num_embeddings": -1},
        {"embedding_dim": 2.5},
        {"padding_idx": 4},
        {"padding_idx": -5},
        {"max_norm": "long"},
    ],
    ids=str,
)
def test_arguments_that_make_no_table(cls, kwargs):
    with pytest.raises(ValueError, match=f"{cls.__name__}: expected {next(iter(kwargs))}"):
        cls(**{"num_embeddings": 4, "embedding_dim": 3, **kwargs})


def test_bags_that_are_none():
    with pytest.raises(ValueError, match="expected mode to be 'sum', 'mean' or 'max', got 'min'"):
        EmbeddingBag(4, 3, mode="min")
    for option in ("scale_grad_by_freq", "sparse"):
        with pytest.raises(ValueError, match="got 'max'"):
            EmbeddingBag(4, 3, mode="max", **{option: True})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (([0.5],), "expected integers, the numbers of rows, got dtype float64"),
        (([True],), "expected integers, the numbers of rows, got dtype bool"),
        (([0, -1],), r"expected row numbers in \[0, 4\), got -1"),
        (([[0, 4]],), r"expected row numbers in \[0, 4\), got 4"),
        (([],), "at least one sample"),
    ],
)
@pytest.mark.parametrize("cls", [Embedding, EmbeddingBag])
def test_what_is_no_row_is_refused_before_anything_changes(cls, inputs, message):
    layer = cls.from_pretrained(ROWS, max_norm=1.0)
    with pytest.raises(LayerError, match=message):
        layer(*inputs)
    np.testing.assert_array_equal(layer.weight.data, ROWS)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (([0, 1],), "expected offsets with x of one axis, got none"),
        (([[0, 1]], [0]), "expected no offsets with x of two axes"),
        (([[[0]]],), r"expected x of shape \(B, n\), or \(n,\) with offsets"),
        (([0, 1], [1]), "expected offsets from 0, never decreasing, up to 2"),
        (([0, 1], [0, 3]), "never decreasing, up to 2"),
        (([0, 1], [0, 2, 1]), "never decreasing, up to 2"),
        (([0, 1], [0.0]), "expected offsets as a vector of integers"),
        (([0, 1], [[0]]), "expected offsets as a vector of integers"),
        (([0, 1], [0], [1.0]), r"expected per_sample_weights of the shape of x, \(2,\)"),
    ],
)
def test_bags_that_do_not_fit(inputs, message):
    layer = EmbeddingBag.from_pretrained(ROWS, mode="sum", max_norm=1.0)
    with pytest.raises(LayerError, match=message):
        layer(*inputs)
    np.testing.assert_array_equal(layer.weight.data, ROWS)


def test_weights_are_for_sums_only_and_the_last_offset_is_an_end():
    with pytest.raises(LayerError, match="expected per_sample_weights with mode='sum' only, got mode='mean'"):
        EmbeddingBag(4, 3)([0, 1], [0], [1.0, 1.0])
    bag = EmbeddingBag.from_pretrained(ROWS, mode="sum", include_last_offset=True)
    with pytest.raises(LayerError, match="never decreasing"):
        bag([0, 1], [0])
    # what stands after the last bag belongs to none, and gets no gradient
    np.testing.assert_array_equal(bag([1, 2, 3], [0, 1, 2]), ROWS[[1, 2]])
    bag.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(bag.weight.grad.sum(axis=1), [0, 3, 3, 0])


def test_a_bag_divides_by_the_count_of_the_row_itself():
    bag = EmbeddingBag.from_pretrained(ROWS, mode="sum", scale_grad_by_freq=True)
    bag([1, 1, 3], [0, 1])
    bag.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(bag.weight.grad[:, 0], [0, 1, 0, 1])  # (1 + 1)/2 and 1/1


def test_scatter_add_is_add_at():
    rng = np.random.default_rng(0)
    index, rows = rng.integers(0, 7, 50), rng.standard_normal((50, 3))
    one, other = np.ones((7, 3)), np.ones((7, 3))
    scatter_add(one, index, rows)
    np.add.at(other, index, rows)
    np.testing.assert_allclose(one, other, rtol=1e-12)
    scatter_add(one, index[:0], rows[:0])
    np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parity
@pytest.mark.parametrize("kwargs", [{}, {"padding_idx": 2}, {"mode": "sum"}], ids=str)
def test_a_dense_gradient_has_the_numbers_of_a_sparse_one(kwargs):
    torch = need("torch")
    name = "EmbeddingBag" if "mode" in kwargs else "Embedding"
    x = np.array([[0, 2, 2], [3, 2, 0]])
    ours = {"Embedding": Embedding, "EmbeddingBag": EmbeddingBag}[name](4, 3, sparse=True, rng=0, **kwargs)
    theirs = getattr(torch.nn, name)(4, 3, sparse=True, **kwargs)
    theirs.load_state_dict({"weight": torch.from_numpy(ours.weight.data)})
    y = theirs(torch.from_numpy(x))
    y.sum().backward()
    ours.backward(np.ones_like(ours(x)))
    np.testing.assert_allclose(ours.weight.grad, theirs.weight.grad.to_dense().numpy(), rtol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("padding_idx", [None, 2])
@pytest.mark.parametrize("weighted", [(4, 5), (20,)], ids=str)
def test_weights_of_samples_agree_with_torch(weighted, padding_idx):
    need("torch")
    from tests import parity
    from tests.cases import Case

    rng = np.random.default_rng(0)
    case = Case(EmbeddingBag, (6, 3), kwargs={"mode": "sum", "padding_idx": padding_idx})
    offsets = None if len(weighted) == 2 else np.array([0, 3, 3, 20])
    rounds = [((rng.integers(0, 6, weighted), offsets, rng.standard_normal(weighted)), {}) for _ in range(2)]
    parity.compare(case.build(), parity.twin(case), rounds)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_float32_stays(mode):
    bag = EmbeddingBag(4, 3, mode=mode, max_norm=1.0, scale_grad_by_freq=mode != "max", rng=0)
    assert bag([[0, 1, 1]]).dtype == np.float32
    bag.backward(np.ones((1, 3)))
    assert bag.weight.data.dtype == bag.weight.grad.dtype == np.float32
    embedding = Embedding(4, 3, max_norm=1.0, scale_grad_by_freq=True, rng=0)
    assert embedding([0, 1, 1]).dtype == np.float32
    embedding.backward(np.ones((3, 3)))
    assert embedding.weight.data.dtype == embedding.weight.grad.dtype == np.float32
