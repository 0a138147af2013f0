"""The bundled digits, the readers of MNIST and CIFAR-10 on small files made here, the split and the generators."""

import gzip
import hashlib
import io
import os
import shutil
import tarfile
from importlib import resources

import numpy as np
import pytest

import backhand.datasets
from backhand.datasets import (
    Data,
    DataError,
    MissingDataError,
    load_cifar10,
    load_digits,
    load_mnist,
    moons,
    read_idx,
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


# ---------------------------------------------------------------------- MNIST

NAMES = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
]


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


def flip(at, bits=0xFF):
    return lambda content: content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]


def swap(a, b):
    def damage(folder):
        first, second = (folder / a).read_bytes(), (folder / b).read_bytes()
        (folder / a).write_bytes(second)
        (folder / b).write_bytes(first)

    return damage


def become_a_directory(name):
    def damage(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = NAMES
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


# ---------------------------------------------------------------------- CIFAR-10


def record_file(n, seed):
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 256, (n, 3073), dtype=np.uint8)
    table[:, 0] %= 10
    return table


TABLES = {f"data_batch_{i}.bin": record_file(4, i) for i in (1, 2, 10)} | {"test_batch.bin": record_file(3, 0)}


@pytest.fixture
def cifar(tmp_path):
    """A folder with three batches of 4 images, and 3 to test with."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name, table in TABLES.items():
        (folder / name).write_bytes(table.tobytes())
    (folder / "batches.meta.txt").write_text("airplane\n")
    return folder


def packed(folder, name="cifar-10-binary.tar.gz"):
    """The folder as an archive instead, beside it."""
    archive = folder.parent / name
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    shutil.rmtree(folder)
    return archive


def check_cifar(data):
    table = np.concatenate([TABLES[f"data_batch_{i}.bin"] for i in (1, 2, 10)])  # 10 after 2
    assert [part.x.shape for part in data[:3]] == [(9, 3, 32, 32), (3, 3, 32, 32), (3, 3, 32, 32)]
    x = np.concatenate([data.train.x, data.validation.x])
    assert np.array_equal(x.reshape(12, -1), table[:, 1:].astype(np.float32) / np.float32(255))
    assert np.array_equal(np.concatenate([data.train.y, data.validation.y]), table[:, 0])
    assert np.array_equal(data.test.y, TABLES["test_batch.bin"][:, 0])
    assert (x.dtype, data.train.y.dtype) == (np.float32, np.int64)
    assert data.classes[0] == "airplane"
    assert len(data.classes) == 10


def test_cifar_folder_and_its_parent(cifar):
    check_cifar(load_cifar10(cifar, 3, download=False))
    check_cifar(load_cifar10(str(cifar.parent), 3, download=False))


def test_cifar_archive(cifar):
    archive = packed(cifar)
    check_cifar(load_cifar10(archive.parent, 3, download=False))
    assert [path.name for path in archive.parent.iterdir()] == [archive.name]  # nothing is unpacked


def test_cifar_archive_beside_half_of_the_files(cifar):
    half = (cifar / "data_batch_1.bin").read_bytes()
    archive = packed(cifar)
    cifar.mkdir()
    (cifar / "data_batch_1.bin").write_bytes(half)
    check_cifar(load_cifar10(archive.parent, 3, download=False))


def test_cifar_planes(cifar):
    table = TABLES["data_batch_1.bin"]
    x = load_cifar10(cifar, 3, download=False, dtype=np.uint8).train.x
    assert x.dtype == np.uint8
    assert x[2, 1, 5, 7] == table[2, 1 + 1024 + 5 * 32 + 7]  # green, row 5, column 7


@pytest.mark.parametrize("dtype", FLOATS)
def test_cifar_dtype(cifar, dtype):
    x = load_cifar10(cifar, 3, download=False, dtype=dtype).train.x
    assert x.dtype == dtype
    assert (x.min(), x.max()) == (0, 1)


def change_plain(name, how):
    return lambda folder: (folder / name).write_bytes(how((folder / name).read_bytes()))


B1, B10, T = "data_batch_1.bin", "data_batch_10.bin", "test_batch.bin"
CIFAR_DAMAGE = {
    "test missing": (lambda f: (f / T).unlink(), None, f"{T} not there, nor cifar-10-binary.tar.gz"),
    "batches missing": (lambda f: [p.unlink() for p in f.glob("data*")], None, f"{B1} not there"),
    "pickles": (lambda f: [p.rename(p.with_suffix("")) for p in f.glob("*.bin")], None, "CIFAR-10 for Python"),
    "a directory": (become_a_directory(B10), B10, "cannot be read: Is a directory"),
    "empty": (change_plain(T, lambda c: b""), T, "the file is empty"),
    "cut": (change_plain(B10, lambda c: c[:-1]), B10, "got 12291 bytes; 3072 after the last whole record"),
    "bytes too many": (change_plain(T, lambda c: c + b"\0"), T, "got 9220 bytes; 1 after the last whole record"),
    "label": (change_plain(B1, flip(3073, 0xF0)), B1, "expected labels from 0 to 9, got"),
    "a byte lost at the start": (change_plain(B1, lambda c: b"\x0a" + c[:-1]), B1, "got 10 as label 0"),
}


@pytest.mark.parametrize("damage, name, message", CIFAR_DAMAGE.values(), ids=CIFAR_DAMAGE)
def test_cifar_damage(cifar, damage, name, message):
    damage(cifar)
    for folder in (cifar, cifar.parent):
        with pytest.raises(DataError) as caught:
            load_cifar10(folder, validation=3, download=False)
        text = str(caught.value)
        assert text.startswith(str(cifar / name if name else cifar) + ": ")
        assert message in text
        assert isinstance(caught.value, FileNotFoundError) == (name is None)


ARCHIVE_DAMAGE = {
    "empty": (lambda c: b"", "cannot be read"),
    "cut": (lambda c: c[: len(c) // 2], "cannot be read"),
    "cut at the end": (lambda c: c[:-4], "cannot be read"),
    "flipped": (lambda c: flip(len(c) // 2)(c), "cannot be read"),
    "CRC": (flip(-8), "cannot be read"),
    "a web page": (lambda c: b"<html>", "cannot be read"),
    "another archive": (lambda c: gzip.compress(bytes(10240)), "expected data_batch_1.bin and test_batch.bin in it"),
}


@pytest.mark.parametrize("how, message", ARCHIVE_DAMAGE.values(), ids=ARCHIVE_DAMAGE)
def test_cifar_archive_damage(cifar, how, message):
    archive = packed(cifar)
    archive.write_bytes(how(archive.read_bytes()))
    with pytest.raises(DataError) as caught:
        load_cifar10(archive.parent, validation=3, download=False)
    assert str(caught.value).startswith(f"{archive}: ")
    assert message in str(caught.value)


def test_cifar_archive_with_a_wrong_label_names_archive_and_file(cifar):
    change_plain(B1, flip(3073, 0xF0))(cifar)
    archive = packed(cifar)
    with pytest.raises(DataError) as caught:
        load_cifar10(archive.parent, validation=3, download=False)
    assert str(caught.value).startswith(f"{archive}, {B1}: expected labels from 0 to 9")


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
