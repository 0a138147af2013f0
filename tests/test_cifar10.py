"""The binary files of CIFAR-10: read, and refused where they are damaged."""

import gzip
import shutil
import tarfile

import numpy as np
import pytest

from backhand.datasets import (
    DataError,
    load_cifar10,
)
from tests.damage import become_a_directory, flip

FLOATS = [np.float32, np.float64, np.float16]


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


@pytest.mark.parametrize("names", [("{}.gz", "{}.gz"), ("{}", "{}"), ("{}", "{}.gz")])
def test_cifar_in_gzip(cifar, names):
    for i, path in enumerate(sorted(cifar.glob("*.bin"))):
        content = path.read_bytes()
        path.unlink()
        (cifar / names[i % 2].format(path.name)).write_bytes(gzip.compress(content))
    check_cifar(load_cifar10(cifar, 3, download=False))


def test_cifar_a_folder_of_the_files_name(cifar):
    for path in sorted(cifar.glob("*.bin")):
        path.rename(f"{path}.gz")
        path.mkdir()
    check_cifar(load_cifar10(cifar, 3, download=False))
    (cifar.parent / "cifar-10-binary.tar.gz").mkdir()
    check_cifar(load_cifar10(cifar.parent, 3, download=False))
    for path in cifar.glob("*.gz"):  # unpacked, beside the one that was
        path.with_suffix("").rmdir()
        path.with_suffix("").write_bytes(path.read_bytes())
        path.write_bytes(b"")
    check_cifar(load_cifar10(cifar, 3, download=False))


def test_cifar_archive_that_a_browser_has_unpacked(cifar):
    archive = packed(cifar)
    archive.write_bytes(gzip.decompress(archive.read_bytes()))
    check_cifar(load_cifar10(archive.parent, 3, download=False))


def test_cifar_for_python(tmp_path):
    words = r"this is CIFAR-10 for Python \(pickles, never opened here\); the binary version is cifar-10-binary"
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "test_batch"):
        (folder / name).write_bytes(b"\x80\x02}q\x01.")
    for asked in (tmp_path, folder):
        with pytest.raises(DataError, match=words):
            load_cifar10(asked, 3, download=False)
    packed(folder, "cifar-10-python.tar.gz")
    with pytest.raises(DataError, match=words):
        load_cifar10(tmp_path, 3, download=False)
    (tmp_path / "cifar-10-python.tar.gz").rename(tmp_path / "cifar-10-binary.tar.gz")
    with pytest.raises(DataError, match=words):
        load_cifar10(tmp_path, 3, download=False)


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
