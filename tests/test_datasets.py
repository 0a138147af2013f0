"""The bundled digits, the stratified split, spirals and moons."""

import hashlib
import io
from importlib import resources

import numpy as np
import pytest

import backhand.datasets
from backhand.datasets import (
    Data,
    DataError,
    load_digits,
    moons,
    spirals,
    stratified,
)

FLOATS = [np.float32, np.float64, np.float16]


def sha256(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def same(a, b):
    return a.x.tobytes() == b.x.tobytes() and a.y.tobytes() == b.y.tobytes()


def test_all_is_sorted_and_there():
    assert backhand.datasets.__all__ == sorted(backhand.datasets.__all__)
    assert all(hasattr(backhand.datasets, name) for name in backhand.datasets.__all__)


# ---------------------------------------------------------------------- digits


def test_digits_are_the_published_ones():
    packed = resources.files("backhand.datasets") / "data" / "digits.npz"
    with np.load(io.BytesIO(packed.read_bytes()), allow_pickle=False) as archive:
        assert sorted(archive) == ["images", "labels"]
        images, labels = archive["images"], archive["labels"]
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((1797, 8, 8), np.uint8, (1797,), np.uint8)
    assert sha256(images) == "8f26b2bd9d135c256808f68f14fdabddde6d9c7f869ae419704b051f0f14b3b3"
    assert sha256(labels) == "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0"


def test_digits_carry_their_attribution():
    text = (resources.files("backhand.datasets") / "data" / "digits-ATTRIBUTION.txt").read_text("utf-8")
    for word in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0", "creativecommons.org", "changed"):
        assert word in text


def test_digits_split():
    digits = load_digits()
    assert [len(part.y) for part in digits[:3]] == [1257, 180, 360]
    assert digits.classes == tuple("0123456789")
    for x, y in digits[:3]:
        assert x.shape == (len(y), 1, 8, 8)
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
        assert (x.min(), x.max()) == (0, 1)
        share = np.bincount(y) / len(y) - np.bincount(np.concatenate([part.y for part in digits[:3]])) / 1797
        assert np.abs(share).max() < 2 / len(y)


def test_digits_parts_are_the_whole_and_share_nothing():
    digits = load_digits(dtype=np.uint8)
    rows = [part.x.reshape(len(part.y), -1) for part in digits[:3]]
    packed = resources.files("backhand.datasets") / "data" / "digits.npz"
    with np.load(io.BytesIO(packed.read_bytes())) as archive:
        whole = np.column_stack([archive["images"].reshape(1797, 64), archive["labels"]])
    parts = np.column_stack([np.concatenate(rows), np.concatenate([part.y for part in digits[:3]])])
    assert len(np.unique(whole, axis=0)) == 1797  # no image is there twice, so rows can stand for samples
    assert np.array_equal(np.unique(whole, axis=0), np.unique(parts, axis=0))


def test_digits_default_split_never_changes():
    # The accuracies in the README are of this split: the same bits on every machine and every NumPy.
    digest = "e2d2993a96175b69c5b4795649f3069255f69456a28f999fbb6b268336c55424"
    assert sha256(np.concatenate([part.x.ravel() for part in load_digits(dtype=np.uint8)[:3]])) == digest


def test_digits_seed():
    assert same(load_digits().train, load_digits(rng=np.random.default_rng(0)).train)
    assert not same(load_digits().train, load_digits(rng=1).train)
    assert not same(load_digits(rng=None).train, load_digits(rng=None).train)


@pytest.mark.parametrize("dtype", FLOATS)
def test_digits_dtype(dtype):
    x, raw = load_digits(dtype=dtype).test.x, load_digits(dtype=np.uint8).test.x
    assert x.dtype == dtype
    assert raw.dtype == np.uint8
    assert raw.max() == 16
    assert np.array_equal(x * 16, raw)


def test_digits_sizes():
    digits = load_digits(validation=0, test=1796)
    assert [len(part.y) for part in digits[:3]] == [1, 0, 1796]
    assert digits.validation.x.shape == (0, 1, 8, 8)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"test": 1797}, "test: expected 0 to 1796, got 1797"),
        ({"test": 1000, "validation": 797}, "validation: expected 0 to 796, got 797"),
        ({"validation": -1}, "validation: expected 0 to 1436, got -1"),
        ({"validation": 0.1}, "validation: expected 0 to 1436, got 0.1"),
        ({"test": True}, "test: expected 0 to 1796, got True"),
        ({"dtype": np.int64}, "dtype: expected a float dtype, or uint8 for the values as stored, got int64"),
        ({"dtype": "pixels"}, "dtype: expected a float dtype, or uint8 for the values as stored, got 'pixels'"),
        ({"dtype": complex}, "dtype: expected a float dtype, or uint8 for the values as stored, got complex128"),
    ],
)
def test_digits_refuse(arguments, message):
    with pytest.raises(DataError) as caught:
        load_digits(**arguments)
    assert str(caught.value) == message


def test_data_shows_its_shapes():
    assert repr(load_digits().test) == "Data(x=float32 (360, 1, 8, 8), y=int64 (360,))"


# ---------------------------------------------------------------------- stratified


@pytest.mark.parametrize("seed", range(20))
def test_stratified_parts(seed):
    rng = np.random.default_rng(seed)
    y = rng.choice(5, size=int(rng.integers(50, 400)), p=[0.5, 0.3, 0.15, 0.04, 0.01])
    sizes = [len(y) // 2, len(y) // 5, len(y) // 10]
    parts = stratified(y, sizes, rng=seed)
    assert [len(part) for part in parts] == sizes
    assert len(set(np.concatenate(parts))) == sum(sizes)
    counts = np.bincount(y, minlength=5)
    for part in parts:
        for m in range(1, len(part) + 1):  # the start of a part is as balanced as the part
            assert np.abs(np.bincount(y[part[:m]], minlength=5) - m * counts / len(y)).max() < 6


def test_stratified_takes_labels_of_any_kind():
    (part,) = stratified(["a", "b"] * 10, [10])
    assert sorted(np.array(["a", "b"] * 10)[part]) == ["a"] * 5 + ["b"] * 5


@pytest.mark.parametrize(
    "y, sizes, message",
    [
        ([0, 1], [1, 2], "sizes: expected parts of 2 samples in all at the most, got [1, 2] (that is 3)"),
        ([0, 1], [1, -1], "sizes: expected a whole number of 0 or more, got -1"),
        ([[0, 1]], [1], "y: expected labels of shape (N,), at least one, got shape (1, 2)"),
        ([], [0], "y: expected labels of shape (N,), at least one, got shape (0,)"),
    ],
)
def test_stratified_refuses(y, sizes, message):
    with pytest.raises(DataError) as caught:
        stratified(y, sizes)
    assert str(caught.value) == message


# ---------------------------------------------------------------------- spirals and moons


@pytest.mark.parametrize("make", [spirals, moons])
@pytest.mark.parametrize("n", [3, 100, 101])
def test_toys(make, n):
    data = make(n, rng=0)
    assert isinstance(data, Data)
    assert (data.x.shape, data.x.dtype) == ((n, 2), np.float32)
    assert (data.y.shape, data.y.dtype) == ((n,), np.int64)
    counts = np.bincount(data.y)
    assert len(counts) == (3 if make is spirals else 2)
    assert counts.max() - counts.min() <= 1
    assert same(data, make(n, rng=0))
    assert same(data, make(n, rng=np.random.default_rng(0)))
    assert not same(data, make(n, rng=1))
    assert not same(make(n), make(n))


def test_spirals_equation():
    x, y = spirals(40, classes=4, noise=0, turns=1)
    t = np.hypot(*x.T)
    assert np.allclose(t.reshape(10, 4), np.arange(1, 11)[:, None] / 10)
    angle = np.arctan2(x[:, 0], x[:, 1])
    wanted = 2 * np.pi * (t + y / 4)
    assert np.allclose(np.cos(angle - wanted), 1, atol=1e-6)


def test_moons_equation():
    x, y = moons(50, noise=0)
    assert np.allclose(np.hypot(*x[y == 0].T), 1)
    assert (x[y == 0, 1] > -1e-6).all()
    assert np.allclose(np.hypot(*(x[y == 1] - [1, 0.5]).T), 1)
    assert (x[y == 1, 1] < 0.5 + 1e-6).all()


def test_noise_is_a_standard_deviation():
    clean, noisy = moons(4000, noise=0), moons(4000, noise=0.3, rng=0)
    assert np.allclose((noisy.x - clean.x).std(axis=0), 0.3, rtol=0.05)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: spirals(2), "n: expected a whole number of 3 or more, got 2"),
        (lambda: spirals(10.0), "n: expected a whole number of 3 or more, got 10.0"),
        (lambda: spirals(classes=0), "classes: expected a whole number of 1 or more, got 0"),
        (lambda: spirals(noise=-1), "noise: expected a number of 0 or more, got -1"),
        (lambda: spirals(turns=float("nan")), "turns: expected a number of 0 or more, got nan"),
        (lambda: moons(1), "n: expected a whole number of 2 or more, got 1"),
        (lambda: moons("many"), "n: expected a whole number of 2 or more, got 'many'"),
        (lambda: moons(noise="much"), "noise: expected a number of 0 or more, got 'much'"),
        (lambda: moons(noise=None), "noise: expected a number of 0 or more, got None"),
    ],
)
def test_toys_refuse(make, message):
    with pytest.raises(DataError) as caught:
        make()
    assert str(caught.value) == message
