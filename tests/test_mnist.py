"""The idx files of MNIST: read, and refused where they are damaged."""

import gzip
import os

import numpy as np
import pytest

from backhand.datasets import (
    DataError,
    MissingDataError,
    load_cifar10,
    load_mnist,
    read_idx,
)
from tests.damage import become_a_directory, flip

FLOATS = [np.float32, np.float64, np.float16]


def same(a, b):
    return a.x.tobytes() == b.x.tobytes() and a.y.tobytes() == b.y.tobytes()


# ---------------------------------------------------------------------- MNIST

NAMES = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
]
IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = NAMES


def idx(array, code=0x08):
    head = bytes([0, 0, code, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.tobytes()


def arrays(rng=0):
    rng = np.random.default_rng(rng)
    for n in (20, 6):
        yield rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        yield rng.integers(0, 10, n, dtype=np.uint8)


@pytest.fixture
def mnist(tmp_path):
    """A folder with the four files, 20 and 6 images."""
    for name, array in zip(NAMES, arrays(), strict=True):
        (tmp_path / name).write_bytes(gzip.compress(idx(array)))
    return tmp_path


def test_mnist(mnist):
    x, y, test_x, test_y = arrays()
    data = load_mnist(mnist, validation=5, download=False)
    assert [part.x.shape for part in data[:3]] == [(15, 1, 28, 28), (5, 1, 28, 28), (6, 1, 28, 28)]
    assert data.train.x.dtype == np.float32
    assert data.train.y.dtype == np.int64
    assert data.classes == tuple("0123456789")
    assert np.array_equal(data.train.x[:, 0], x[:15].astype(np.float32) / np.float32(255))
    assert np.array_equal(np.concatenate([data.train.y, data.validation.y]), y)
    assert np.array_equal(data.test.x[:, 0], test_x.astype(np.float32) / np.float32(255))
    assert np.array_equal(data.test.y, test_y)
    assert np.shares_memory(data.train.x.base, data.validation.x.base)  # the images are in memory once


@pytest.mark.parametrize("dtype", FLOATS)
def test_mnist_dtype(mnist, dtype):
    data, raw = (load_mnist(str(mnist), 0, download=False, dtype=d) for d in (dtype, np.uint8))
    assert data.train.x.dtype == dtype
    assert np.array_equal(raw.train.x[:, 0], next(arrays()))
    assert np.array_equal(np.rint(data.train.x * 255), raw.train.x)
    raw.train.x[0] = 0  # one's own copy


@pytest.mark.parametrize("rename", [lambda name: name, lambda name: name.replace("-idx", ".idx")], ids=["dash", "dot"])
@pytest.mark.parametrize("packed", [True, False])
def test_mnist_names(mnist, rename, packed):
    wanted = load_mnist(mnist, 5, download=False)
    for name in NAMES:
        content = (mnist / name).read_bytes()
        (mnist / name).unlink()
        new = rename(name if packed else name.removesuffix(".gz"))
        (mnist / new).write_bytes(content if packed else gzip.decompress(content))
    assert all(map(same, load_mnist(mnist, 5, download=False)[:3], wanted[:3]))


def into(folder, place, names=NAMES, packed=True):
    """The four files of the folder moved into a place in it, under other names."""
    (folder / place).mkdir(parents=True, exist_ok=True)
    for old, new in zip(NAMES, names, strict=True):
        content = (folder / old).read_bytes()
        (folder / old).unlink()
        (folder / place / new).write_bytes(content if packed else gzip.decompress(content))


@pytest.mark.parametrize(
    ("place", "asked"),
    [("MNIST/raw", "."), ("MNIST/raw", "MNIST"), ("MNIST/raw", "MNIST/raw"), ("raw", "."), ("KMNIST/raw", "KMNIST")],
)
@pytest.mark.parametrize("packed", [True, False])
def test_torchvisions_folders(mnist, place, asked, packed):
    wanted = load_mnist(mnist, 5, download=False)
    into(mnist, place, NAMES if packed else [name.removesuffix(".gz") for name in NAMES], packed)
    assert all(map(same, load_mnist(mnist / asked, 5, download=False)[:3], wanted[:3]))
    if packed:  # where files are missing, the folder that has them all counts
        (mnist / asked / IMAGES).write_bytes((mnist / place / IMAGES).read_bytes())
        assert all(map(same, load_mnist(mnist / asked, 5, download=False)[:3], wanted[:3]))


def test_another_data_set_beside_is_not_taken_for_mnist(mnist):
    into(mnist, "FashionMNIST/raw")
    with pytest.raises(MissingDataError, match=r"gz not there; for what is in it, give .*FashionMNIST; download=True"):
        load_mnist(mnist, 5, download=False)
    assert len(load_mnist(mnist / "FashionMNIST", 5, download=False).train.y) == 15


@pytest.mark.parametrize("dots", [True, False])
def test_a_folder_of_the_files_name(mnist, dots):
    wanted = load_mnist(mnist, 5, download=False)
    plain = [name.removesuffix(".gz") for name in NAMES]
    into(mnist, ".", [name.replace("-idx", ".idx") for name in plain] if dots else NAMES, packed=not dots)
    for name in plain:
        (mnist / name).mkdir()
    assert all(map(same, load_mnist(mnist, 5, download=False)[:3], wanted[:3]))
    for name in plain:  # the file in the folder, as some programs unpack it
        file = next(path for path in mnist.iterdir() if path.is_file() and path.name.startswith(name[:11]))
        file.rename(mnist / name / name)
    assert all(map(same, load_mnist(mnist, 5, download=False)[:3], wanted[:3]))
    (mnist / plain[0] / plain[0]).unlink()
    with pytest.raises(DataError, match=f"{plain[0]}: cannot be read: Is a directory"):
        load_mnist(mnist, 5, download=False)


# the labels that a split of EMNIST has, and the classes they stand for
SPLITS = {
    "letters": (range(1, 27), "N/A", "z"),
    "balanced": (range(47), "0", "t"),
    "bymerge": (range(47), "0", "t"),
    "byclass": (range(62), "0", "z"),
    "digits": (range(10), "0", "9"),
}


def emnist(folder, split, names=NAMES, times=1):
    rng = np.random.default_rng(3)
    some = list(SPLITS[split][0])
    for n, pair in ((200 * times, names[:2]), (60, names[2:])):
        y = np.array(some * 20 * times)[:n].astype(np.uint8)
        (folder / pair[0]).write_bytes(gzip.compress(idx(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))))
        (folder / pair[1]).write_bytes(gzip.compress(idx(y)))
    return np.array(some * 20)[:200]


@pytest.mark.parametrize("split", SPLITS)
def test_emnist(tmp_path, split):
    y = emnist(tmp_path, split)
    _, first, last = SPLITS[split]
    for asked in (None, split):
        data = load_mnist(tmp_path, 5, download=False, split=asked)
        assert data.classes == load_mnist(tmp_path, 5, download=False, split=split).classes
        assert (data.classes[0], data.classes[-1]) == (first, last)
        assert len(data.classes) == max(SPLITS[split][0]) + 1 == len(set(data.classes))
        np.testing.assert_array_equal(np.concatenate([data.train.y, data.validation.y]), y)


@pytest.mark.parametrize("split", SPLITS)
def test_emnist_with_a_label_that_no_class_has(tmp_path, split):
    emnist(tmp_path, split)
    least, most = min(SPLITS[split][0]), max(SPLITS[split][0])
    content = bytearray(gzip.decompress((tmp_path / TEST_LABELS).read_bytes()))
    content[8 + 7] = wrong = most + 1
    (tmp_path / TEST_LABELS).write_bytes(gzip.compress(bytes(content)))
    for asked in (None, split):
        with pytest.raises(DataError, match=f"{TEST_LABELS}: expected labels from {least} to {most}, got {wrong} as"):
            load_mnist(tmp_path, 5, download=False, split=asked)
    with pytest.raises(DataError, match="expected labels from 0 to 9, got"):
        load_mnist(tmp_path, 5, download=False, split="mnist")


def test_emnist_and_qmnist_under_their_own_names(tmp_path):
    def named(split):
        return [f"emnist-{split}-{name.replace('t10k', 'test')}" for name in NAMES]

    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    emnist(raw, "letters", named("letters"))
    assert len(load_mnist(raw, 5, download=False).classes) == 27  # the only one
    assert len(load_mnist(raw.parent, 5).classes) == 27  # and nothing is fetched
    emnist(raw, "balanced", named("balanced"))
    with pytest.raises(
        DataError, match=r"split: expected one of letters, balanced, all of which are in .*raw, got None"
    ):
        load_mnist(raw.parent, 5)
    for folder in (raw, raw.parent, tmp_path):
        assert len(load_mnist(folder, 5, download=False, split="balanced").classes) == 47
    for download in (True, False):
        with pytest.raises(MissingDataError, match=r"emnist-bymerge-train-images-idx3-ubyte\.gz, .* not there"):
            load_mnist(raw, 5, split="bymerge", download=download)
    with pytest.raises(DataError, match=r"split: expected one of mnist, digits, letters, .* got 'words'"):
        load_mnist(raw, 5, split="words")

    qmnist = tmp_path / "QMNIST" / "raw"
    qmnist.mkdir(parents=True)
    for part, n in (("train", 12), ("test", 4)):
        rows = np.arange(8 * n, dtype=">i4").reshape(n, 8)
        rows[:, 0] %= 10
        (qmnist / f"qmnist-{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(np.ones((n, 28, 28), np.uint8))))
        (qmnist / f"qmnist-{part}-labels-idx2-int.gz").write_bytes(gzip.compress(idx(rows, 0x0C)))
    data = load_mnist(qmnist.parent, 2, download=False)
    np.testing.assert_array_equal(data.train.y, 8 * np.arange(10) % 10)
    rows[1, 0] = -1
    (qmnist / "qmnist-test-labels-idx2-int.gz").write_bytes(idx(rows, 0x0C))
    with pytest.raises(DataError, match="expected labels from 0 to 9, got -1 as label 1"):
        load_mnist(qmnist.parent, 2, download=False)


def test_mnist_gz_that_a_browser_has_unpacked(mnist):
    path = mnist / NAMES[0]
    path.write_bytes(gzip.decompress(path.read_bytes()))
    assert len(load_mnist(mnist, 5, download=False).train.y) == 15


def change(name, how, unpacked=True):
    """The folder with one file's content replaced by how(content)."""

    def damage(folder):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(gzip.compress(how(gzip.decompress(content))) if unpacked else how(content))

    return damage


def swap(a, b):
    def damage(folder):
        first, second = (folder / a).read_bytes(), (folder / b).read_bytes()
        (folder / a).write_bytes(second)
        (folder / b).write_bytes(first)

    return damage


MNIST_DAMAGE = {
    "missing": (lambda f: (f / LABELS).unlink(), None, f"{LABELS} not there; download=True"),
    "all missing": (lambda f: [(f / name).unlink() for name in NAMES], None, f"{', '.join(NAMES)} not there"),
    "a directory": (become_a_directory(IMAGES), IMAGES, "cannot be read: Is a directory"),
    "empty": (change(IMAGES, lambda c: b"", False), IMAGES, "the file is empty"),
    "gz of nothing": (change(IMAGES, lambda c: b""), IMAGES, "got nothing"),
    "gz cut": (change(IMAGES, lambda c: c[:-100], False), IMAGES, "damaged or cut short"),
    "gz cut in its last byte": (change(LABELS, lambda c: c[:-1], False), LABELS, "damaged or cut short"),
    "gz cut in its header": (change(LABELS, lambda c: c[:5], False), LABELS, "damaged or cut short"),
    "gz flipped": (change(IMAGES, flip(5000), False), IMAGES, "damaged or cut short"),
    "gz CRC": (change(LABELS, flip(-8), False), LABELS, "CRC check failed"),
    "gz and more": (change(LABELS, lambda c: c + b"more", False), LABELS, "damaged or cut short"),
    "a web page": (change(IMAGES, lambda c: b"<!DOCTYPE html>", False), IMAGES, "got 3c 21 44 4f (b'<!DO')"),
    "magic": (change(IMAGES, flip(1)), IMAGES, "which starts with 00 00"),
    "dtype byte": (change(IMAGES, flip(2)), IMAGES, "a dtype from 08 to 0E"),
    "another dtype": (change(LABELS, flip(2, 1)), LABELS, "labels: uint8 with 1 dimension, got int8 of shape (20,)"),
    "no dimensions": (change(IMAGES, flip(3, 3)), IMAGES, "a number of dimensions, got 00 00 08 00"),
    "cut in the header": (change(IMAGES, lambda c: c[:10]), IMAGES, "a header of 16 bytes, got a file of 10"),
    "no images": (change(IMAGES, flip(7, 20)), IMAGES, "at least one number, got the shape (0, 28, 28)"),
    "bytes missing": (
        change(IMAGES, lambda c: c[:-1]),
        IMAGES,
        "expected 15696 bytes, from the shape (20, 28, 28) in its header, got 15695; 1 missing",
    ),
    "bytes too many": (change(LABELS, lambda c: c + b"\3\3"), LABELS, "got 30; 2 too many"),
    "a huge header": (change(IMAGES, flip(4)), IMAGES, "missing"),
    "label": (
        change(LABELS, lambda c: c[:-2] + b"\x0a" + c[-1:]),
        LABELS,
        "expected labels from 0 to 9, got 10 as label 18 (counting from 0)",
    ),
    "images and labels swapped": (swap(IMAGES, LABELS), IMAGES, "this looks like a file of labels"),
    "labels are images": (swap(TEST_LABELS, TEST_IMAGES), TEST_IMAGES, "this looks like a file of labels"),
    "labels of the other part": (
        swap(LABELS, TEST_LABELS),
        LABELS,
        f"expected 20 labels, one for each image in {IMAGES}, got 6",
    ),
    "images of another size": (
        change(TEST_IMAGES, lambda c: idx(np.zeros((6, 14, 14), np.uint8))),
        TEST_IMAGES,
        f"images of the size in {IMAGES}, (28, 28), got (14, 14)",
    ),
}


@pytest.mark.parametrize("damage, name, message", MNIST_DAMAGE.values(), ids=MNIST_DAMAGE)
def test_mnist_damage(mnist, damage, name, message):
    damage(mnist)
    with pytest.raises(DataError) as caught:
        load_mnist(mnist, validation=5, download=False)
    text = str(caught.value)
    assert text.startswith(str(mnist / name if name else mnist) + ": ")
    assert message in text
    assert "\n" not in text
    assert isinstance(caught.value, FileNotFoundError) == (name is None)


@pytest.mark.parametrize("load", [load_mnist, load_cifar10])
def test_folders_that_are_none(tmp_path, load):
    with pytest.raises(MissingDataError, match="nowhere: there is no such folder"):
        load(tmp_path / "nowhere", download=False)
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "file").write_bytes(b"")
    for download in (True, False):
        with pytest.raises(DataError, match="file: expected a folder, got a file"):
            load(tmp_path / "file", download=download)


@pytest.mark.parametrize("load", [load_mnist, load_cifar10])
def test_folder_without_permission(tmp_path, load, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything, so it cannot be tried
    with pytest.raises(DataError) as caught:
        load(tmp_path, download=False)
    assert str(caught.value) == f"{tmp_path}: the folder cannot be read: permission denied"


def test_mnist_validation_is_checked(mnist):
    with pytest.raises(DataError, match="validation: expected 0 to 19, got 20"):
        load_mnist(mnist, validation=20, download=False)
    with pytest.raises(DataError, match="validation: expected a whole number of 0 or more, got -1"):
        load_mnist(mnist / "nowhere", validation=-1)  # before anything is downloaded


@pytest.mark.parametrize("seed", range(30))
def test_idx_any_damage_is_a_data_error_or_harmless(tmp_path, seed):
    rng = np.random.default_rng(seed)
    whole = gzip.compress(idx(np.arange(60, dtype=np.uint8).reshape(5, 3, 4)))
    path = tmp_path / "some.gz"
    for at in range(len(whole)):
        path.write_bytes(flip(at, int(rng.integers(1, 256)))(whole))
        try:
            array = read_idx(path)
        except DataError as error:
            assert str(error).startswith(str(path))
        else:  # the time in a gzip header means nothing, nor does the padding of its last byte
            assert np.array_equal(array.ravel(), np.arange(60))


@pytest.mark.parametrize("code, dtype", [(8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")])
def test_idx_dtypes(tmp_path, code, dtype):
    array = np.arange(-12, 12).reshape(2, 3, 4).astype(dtype)
    (tmp_path / "some.idx").write_bytes(idx(array, code))
    read = read_idx(str(tmp_path / "some.idx"))
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    assert read.dtype.isnative
    assert np.array_equal(read, array)


def test_idx_missing(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        read_idx(tmp_path / "some.idx")
    assert str(caught.value) == f"{tmp_path / 'some.idx'}: there is no such file"
