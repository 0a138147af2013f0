"""What stands in the place of a file: each kind is recognised, and each reader says in one line what it got."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from backhand.datasets import load_cifar10, load_digits, load_mnist, load_names, load_text, read_idx
from backhand.datasets.file_kinds import kind_of
from backhand.layers import Linear
from backhand.training import History, load_weights, read_metadata, read_weights, save_weights
from backhand.training.replay import FailedStep
from tests.test_cifar10 import TABLES
from tests.test_mnist import NAMES, arrays, idx


def zipped(*names, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name in names:
            archive.writestr(name, b"some content" * 20)
    return file.getvalue()


def written(write, *what, **more):
    file = io.BytesIO()
    write(file, *what, **more)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("some.txt"))
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 9912422\n"
PAGE = b"<!DOCTYPE html>\n<html lang=en><head><title>Sign in</title></head><body>Please sign in.</body></html>\n"
KINDS = {
    "a git-lfs pointer": LFS,
    "a git-annex pointer": b"/annex/objects/MD5E-s12--0123456789abcdef.gz\n",
    "a web page (HTML)": PAGE,
    "a web page (HTML) ": b"\xef\xbb\xbf \n<HTML><body>404</body></HTML>",
    "a web page (HTML)  ": b"<!-- a comment --><html></html>",
    "an XML file": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    "a JSON file": b'{"error": "Repository not found"}',
    "a JSON file ": b"[1, 2]",
    "a zip archive": zipped("train-images-idx3-ubyte"),
    "a zip archive ": b"PK\x03\x04" * 100,
    "a file that torch.save wrote": zipped("archive/data.pkl", "archive/data/0", "archive/version"),
    "a file that torch.save wrote ": zipped("net/version", "net/data.pkl"),
    "a file that torch.save wrote  ": pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + b"more",
    "NumPy's .npz": written(np.savez, a=np.ones(3)),
    "NumPy's .npz ": written(np.savez_compressed, a=np.ones(3)),
    "NumPy's .npy": written(np.save, np.ones(3)),
    "a Keras model": zipped("metadata.json", "config.json", "model.weights.h5"),
    "a Python pickle": pickle.dumps({"data": [1]}, 2),
    "a Python pickle ": pickle.dumps({"data": [1]}, 5),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0",
    "an ONNX model": b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\xc8\x01",
    "an ONNX model ": b"\x08\x0a\x3a\xc8\x01\x0a\x10",
    "a TensorFlow SavedModel": b"\x08\x01\x12\xd4\x06\x0a\x99",
    "a TensorFlow Lite model": b"\x1c\0\0\0TFL3\x14\0\x20\0",
    "a GGUF model": b"GGUF\x03\0\0\0\x23\x01\0\0\0\0\0\0",
    "a tar archive": tarred(),
    "a bzip2 file": b"BZh91AY&SY\0\0",
    "a Parquet file": b"PAR1\x15\x04\x15",
    "a PNG picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "text in UTF-16": "some words".encode("utf-16"),
    "nothing but zeros": bytes(3073),
    "the index of a model": json.dumps(
        {"metadata": {}, "weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors"}}
    ).encode(),
}


@pytest.mark.parametrize(("kind", "content"), KINDS.items(), ids=KINDS)
def test_each_kind(kind, content):
    assert kind_of(content).startswith(kind.strip())
    if "JSON" not in kind and "index" not in kind and len(content) > 2048:
        assert kind_of(content[:2048]) == kind_of(content)


def test_gzip_empty_and_what_is_not_known(tmp_path):
    assert kind_of(gzip.compress(PAGE)) == "a gzip file" and kind_of(b"") == "an empty file"
    assert kind_of(idx(next(arrays()))) == "an idx file"
    save_weights(Linear(3, 2, rng=0), tmp_path / "a")
    assert kind_of((tmp_path / "a").read_bytes()) == "a safetensors file"
    for content in (
        b"some words",
        b"{ not JSON",
        b"<mediawiki>",
        b"G",
        b"\x08",
        b"\x80",
        b"\xf0\x01\x02",
        b"[" * 100_000,
    ):
        assert kind_of(content) is None
    known = 0
    for seed in range(2000):  # chance does not look like much
        known += kind_of(np.random.default_rng(seed).bytes(64)) is not None
    assert known < 10


# ---------------------------------------------------------------------- every reader


def weights(folder):
    save_weights(Linear(3, 2, rng=0), folder / "net.safetensors")
    return folder / "net.safetensors"


def mnist(which):
    def write(folder):
        for name, array in zip(NAMES, arrays(), strict=True):
            (folder / name).write_bytes(gzip.compress(idx(array)))
        return folder / NAMES[which]

    return write


def cifar(folder):
    for name, table in TABLES.items():
        (folder / name).write_bytes(table.tobytes())
    return folder / "data_batch_2.bin"


def cifar_archive(folder):
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, table in TABLES.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = table.nbytes
            tar.addfile(member, io.BytesIO(table.tobytes()))
    return folder / "cifar-10-binary.tar.gz"


def text(folder):
    (folder / "some.txt").write_text("".join(f"name{i}\n" for i in range(30)))
    return folder / "some.txt"


def step(folder):
    model = Linear(3, 2, rng=0)
    FailedStep.of(model, model, (np.ones(3),), np.ones(2), {}).save(folder / "failed_step.npz")
    return folder / "failed_step.npz"


def history(folder):
    History(folder / "history.jsonl").append({"step": 1, "epoch": 1.0})
    return folder / "history.jsonl"


# how a good file is written, and how it is read
READERS = {
    "read_weights": (weights, read_weights),
    "load_weights": (weights, lambda path: load_weights(Linear(3, 2, rng=0), path)),
    "read_metadata": (weights, read_metadata),
    "read_idx": (mnist(0), read_idx),
    "load_mnist images": (mnist(0), lambda path: load_mnist(path.parent, 5, download=False)),
    "load_mnist labels": (mnist(3), lambda path: load_mnist(path.parent, 5, download=False)),
    "load_cifar10": (cifar, lambda path: load_cifar10(path.parent, 3, download=False)),
    "load_cifar10 archive": (cifar_archive, lambda path: load_cifar10(path.parent, 3, download=False)),
    "load_text": (text, load_text),
    "load_names": (text, load_names),
    "FailedStep.load": (step, FailedStep.load),
    "History.read": (history, History.read),
}
# What a reader takes, or reads as what it is: text in the formats of text is text.
TAKEN = {
    "load_text": ("an XML", "a JSON", "the index"),
    "load_names": ("an XML", "a JSON", "the index"),
    "load_cifar10": ("nothing but zeros",),  # as many as a record has: an aeroplane in the dark
}
# What it calls something else: JSON and zeros are what a history, or an archive, may begin with.
UNNAMED = {
    "History.read": ("a JSON", "the index", "nothing but zeros", "a tar"),
    "load_cifar10": ("an ONNX", "a TensorFlow", "a safe"),
    "load_cifar10 archive": ("a tar",),
    "FailedStep.load": ("NumPy's .npz",),
}
UNNAMED |= {name: ("nothing but zeros",) for name in ("read_weights", "load_weights", "read_metadata")}
UNNAMED |= {name: ("nothing but zeros",) for name in ("load_mnist images",)}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("kind", "content"), KINDS.items(), ids=KINDS)
def test_every_reader_says_what_it_got(tmp_path, reader, kind, content):
    write, read = READERS[reader]
    path = write(tmp_path)
    read(path)
    path.write_bytes(content)
    if kind.startswith(TAKEN.get(reader, ("nothing that is taken",))):
        try:
            read(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
        return
    with pytest.raises(ValueError) as caught:
        read(path)
    said = str(caught.value)
    assert said.startswith(str(path)) and "\n" not in said
    if not kind.startswith(UNNAMED.get(reader, ("nothing that is unnamed",))):
        assert kind.strip() in said
    if kind == "a git-lfs pointer":
        assert "git lfs pull" in said or reader in ("FailedStep.load", "History.read")


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_and_a_folder_nothing_or_half_a_file(tmp_path, reader):
    write, read = READERS[reader]
    path = write(tmp_path)
    whole = path.read_bytes()
    for size in (0, 1, 5, len(whole) // 2 + 1, len(whole) - 1):
        path.write_bytes(whole[:size])
        if reader in ("load_text", "load_names", "History.read"):  # half a text is a text; an empty one is none
            continue
        with pytest.raises(ValueError) as caught:
            read(path)
        assert str(caught.value).startswith(str(path)), size
    path.unlink()
    path.mkdir()
    with pytest.raises((ValueError, OSError)) as caught:
        read(path)
    assert str(tmp_path) in str(caught.value)
    path.rmdir()
    with pytest.raises(FileNotFoundError):
        read(path) if reader != "load_cifar10" else load_cifar10(tmp_path / "nowhere", download=False)


def test_weights_in_a_folder_or_in_several_files(tmp_path):
    path = weights(tmp_path)
    with pytest.raises(ValueError, match=r"got a folder; give .*net\.safetensors"):
        read_weights(tmp_path)
    with pytest.raises(ValueError, match=r"got a folder; give .*net\.safetensors"):
        read_metadata(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="got a folder; it holds none"):
        read_weights(tmp_path)
    path.write_bytes(KINDS["the index of a model"])
    with pytest.raises(ValueError, match=r"in m-1\.safetensors, m-2\.safetensors: load each with strict=False"):
        read_weights(path)


def test_no_pickle_is_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return open, (str(tmp_path / "boom"), "w")

    for number, content in enumerate(
        (pickle.dumps(Bomb(), 2), written(np.save, np.array([Bomb()]), allow_pickle=True))
    ):
        for reader, (write, read) in READERS.items():
            folder = tmp_path / f"{reader}{number}"
            folder.mkdir()
            path = write(folder)
            path.write_bytes(content)
            with pytest.raises(ValueError):
                read(path)
    assert not (tmp_path / "boom").exists()


def test_a_page_to_learn_from(tmp_path):
    (tmp_path / "page.html").write_bytes(PAGE * 5)
    assert len(load_text(tmp_path / "page.html").train) > 100
    (tmp_path / "some.txt.gz").write_bytes(gzip.compress(b"to be or not to be " * 20))
    assert load_text(tmp_path / "some.txt.gz").decode(load_text(tmp_path / "some.txt.gz").train[:5]) == "to be"


@pytest.mark.parametrize("order", "<>")
def test_no_reader_hands_out_arrays_of_another_byte_order(tmp_path, order):
    dtype = np.dtype(np.float32).newbyteorder(order)
    folders = [tmp_path / name for name in ("mnist", "cifar", "weights", "text", "step")]
    for folder in folders:
        folder.mkdir()
    mnist(0)(folders[0]), cifar(folders[1])
    x = np.ones((2, 3), dtype)
    model = Linear(3, 2, rng=0)
    FailedStep.of(model, model, (x,), x, {}).save(folders[4] / "failed_step.npz")
    failed = FailedStep.load(folders[4])
    (tmp_path / "some.idx").write_bytes(idx(np.arange(6.0).astype(">f8").reshape(2, 3), 0x0E))
    parts = [
        *load_mnist(folders[0], 5, download=False, dtype=dtype)[:3],
        *load_cifar10(folders[1], 3, download=False, dtype=dtype)[:3],
        *load_digits(dtype=dtype)[:3],
        read_weights(weights(folders[2])).values(),
        load_text(text(folders[3]))[:2],
        *load_names(text(folders[3]))[:3],
        [read_idx(tmp_path / "some.idx")],
        [*failed.inputs, failed.target, *failed.weights.values()],
    ]
    for part in parts:
        assert all(array.dtype.isnative for array in part)
    np.testing.assert_array_equal(failed.inputs[0], x)


@pytest.mark.parametrize("weight_map", [["x"], None, 3])
def test_an_index_without_a_map_is_json_like_any_other(tmp_path, weight_map):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match="JSON"):
        read_weights(path)
