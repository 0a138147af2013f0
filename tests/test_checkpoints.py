"""Weights on disk: whole or not at all, read by torch and read from torch."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from backhand.layers import BatchNorm1d, Embedding, Layer, LayerError, Linear, Parameter, ReLU
from backhand.models import Repeat, Sequential
from backhand.training import load_weights, read_metadata, read_weights, save_weights
from tests.conftest import need


class Counter(Layer):
    """A layer with buffers: one of them a whole number, as BatchNorm has."""

    buffer_names = ("mean", "count")

    def __init__(self):
        self.weight = Parameter(np.float32(3.0))
        self.mean = np.arange(3, dtype=np.float64)
        self.count = np.array(5)


def model(seed=0):
    body = Linear(4, 4, rng=seed)
    return Sequential(body, ReLU(), Repeat(body, 2), Counter(), Linear(4, 2, rng=seed + 1))


def test_round_trip(tmp_path):
    path = tmp_path / "model.safetensors"
    first, second = model(0), model(8)
    first[3].count[...] = 7
    save_weights(first, path, {"model": "mlp", "accuracy": 0.975})
    keys = load_weights(second, str(path))
    assert keys.missing_keys == keys.unexpected_keys == []
    np.testing.assert_equal(second.state_dict(), first.state_dict())
    np.testing.assert_equal(read_weights(path), first.state_dict())
    assert read_metadata(path) == {"model": "mlp", "accuracy": "0.975"}
    save_weights(first, path)
    assert read_metadata(path) == {}
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_weights_laid_out_flat_by_an_optimizer(tmp_path):
    from backhand.training import SGD

    first, second = model(0), model(8)
    optimizer = SGD(first.parameters(), lr=1.0)
    for p in first.parameters():
        p.grad += 1
    optimizer.step()
    save_weights(first, tmp_path / "a")
    before = first.state_dict()
    load_weights(second, tmp_path / "a")
    optimizer.step()
    np.testing.assert_equal(second.state_dict(), before)
    load_weights(first, tmp_path / "a")
    optimizer.step()
    assert np.allclose(first[4].bias.data, before["4.bias"] - 1)


def test_a_file_that_is_missing_cut_short_or_something_else(tmp_path):
    target = model()
    before = target.state_dict()
    good = tmp_path / "good.safetensors"
    save_weights(target, good)
    whole = good.read_bytes()
    bad = tmp_path / "bad.safetensors"
    with pytest.raises(FileNotFoundError, match=r"bad\.safetensors"):
        load_weights(target, bad)
    with pytest.raises(FileNotFoundError, match=r"bad\.safetensors"):
        read_metadata(bad)
    for content in (b"", whole[:5], whole[:40], whole[:-1], whole + b"x", bytes(400), b"some words"):
        bad.write_bytes(content)
        for read in (lambda: load_weights(target, bad), lambda: read_metadata(bad)):
            with pytest.raises(ValueError, match=r"bad\.safetensors: cut short, or not a safetensors file"):
                read()
    np.testing.assert_equal(target.state_dict(), before)


def test_weights_that_do_not_fit(tmp_path):
    save_weights(Sequential(Linear(4, 3, rng=0), Linear(3, 1, rng=0)), tmp_path / "a")
    other = Linear(3, 2, rng=0)
    with pytest.raises(LayerError, match=r"missing: weight, bias; unexpected: .*0\.weight"):
        load_weights(other, tmp_path / "a")
    wide = Sequential(Linear(5, 3, rng=0))
    with pytest.raises(LayerError, match=r"0.weight should be \(3, 5\) and is \(3, 4\)"):
        load_weights(wide, tmp_path / "a", strict=False)
    part = Sequential(Linear(4, 3, rng=5))
    assert sorted(load_weights(part, tmp_path / "a", strict=False).unexpected_keys) == ["1.bias", "1.weight"]
    assert load_weights(part, tmp_path / "a", strict=False).missing_keys == []


def test_the_report_of_what_fits_in_part(tmp_path):
    path = tmp_path / "a"
    save_weights(Sequential({"body": Linear(4, 3, rng=0), "head": Linear(3, 5, rng=1), "more": Linear(1, 1)}), path)
    mine = Sequential({"body": Linear(4, 3, rng=7), "head": Linear(3, 2, rng=8), "new": Linear(2, 2, bias=False)})
    before = mine.state_dict()
    for strict, misshapen in ((True, False), (True, True), (False, False)):
        with pytest.raises(LayerError, match=r"misshapen: head.bias should be \(2,\) and is \(5,\)"):
            load_weights(mine, path, strict, misshapen=misshapen)
    np.testing.assert_equal(mine.state_dict(), before)
    report = load_weights(mine, path, strict=False, misshapen=True)
    assert report.loaded_keys == ["body.weight", "body.bias"]
    assert report.missing_keys == ["new.weight"]
    assert sorted(report.unexpected_keys) == ["more.bias", "more.weight"]
    assert report.misshapen_keys == ["head.weight", "head.bias"]
    assert str(report).split("\n")[:6] == [
        "2 arrays loaded",
        "1 missing, left as they were:",
        "  new.weight",
        "2 misshapen, left as they were:",
        "  head.weight: (2, 3) here, (5, 3) in the file",
        "  head.bias: (2,) here, (5,) in the file",
    ]
    after = mine.state_dict()
    np.testing.assert_equal(after["body.weight"], read_weights(path)["body.weight"])
    np.testing.assert_equal(after["head.weight"], before["head.weight"])


def test_the_report_of_what_is_tied_or_older(tmp_path):
    model = Sequential({"wte": Embedding(5, 4, rng=0), "norm": BatchNorm1d(4), "head": Linear(4, 5, bias=False, rng=1)})
    model["head"].weight = model["wte"].weight
    whole = {name: array + 2 for name, array in model.state_dict().items()}
    count = whole.pop("norm.num_batches_tracked")
    del whole["head.weight"]
    save_file(whole, tmp_path / "a")
    for options in ({}, {"strict": False}, {"misshapen": True}, {"strict": False, "misshapen": True}):
        report = load_weights(model, tmp_path / "a", **options)
        assert report.missing_keys == report.unexpected_keys == report.misshapen_keys == []
        assert report.loaded_keys == list(whole)
        assert str(report).split("\n") == [
            "5 arrays loaded",
            "2 not in the file, and not missing:",
            "  norm.num_batches_tracked: older files have none; left as it was",
            "  head.weight: is wte.weight",
        ]
    np.testing.assert_equal(model.state_dict()["head.weight"], whole["wte.weight"])
    assert model["norm"].num_batches_tracked == count - 2
    save_file({**whole, "wte.weight": np.ones((6, 4), np.float32)}, tmp_path / "a")  # neither of the two fits
    report = load_weights(model, tmp_path / "a", misshapen=True)
    assert report.misshapen_keys == ["wte.weight"] and report.excused_keys["head.weight"] == "is wte.weight"
    np.testing.assert_equal(model.state_dict()["head.weight"], whole["wte.weight"])
    save_file({**whole, "head.weight": np.ones((6, 4), np.float32)}, tmp_path / "a")  # one would, and one not
    with pytest.raises(LayerError, match=r"a does not fit; wte\.weight and head\.weight are one array here"):
        load_weights(model, tmp_path / "a", strict=False, misshapen=True)


@pytest.mark.parity
def test_what_safetensors_writes_of_a_tied_model(tmp_path):
    torch = need("torch")
    from safetensors.torch import load_file, save_model

    def twin():
        model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5, bias=False))
        model[1].weight = model[0].weight
        return model

    theirs, ours = twin(), Sequential(Embedding(5, 4, rng=0), Linear(4, 5, bias=False, rng=1))
    ours[1].weight = ours[0].weight
    save_model(theirs, tmp_path / "theirs")
    assert len(read_weights(tmp_path / "theirs")) == 1
    report = load_weights(ours, tmp_path / "theirs")
    assert len(report.loaded_keys) == len(report.excused_keys) == 1
    np.testing.assert_array_equal(ours[1].weight.data, theirs[0].weight.detach().numpy())
    ours[0].weight.data += 1
    save_weights(ours, tmp_path / "ours")
    other = twin()
    other.load_state_dict(load_file(tmp_path / "ours"))
    np.testing.assert_array_equal(ours[1].weight.data, other[0].weight.detach().numpy())


def test_a_prefix_in_the_file_is_taken_off(tmp_path):
    inner = Sequential({"module": Linear(2, 2, rng=0)})
    save_weights(inner, tmp_path / "a")
    layer = Linear(2, 2, rng=5)
    assert load_weights(layer, tmp_path / "a", prefix="module.").loaded_keys == ["weight", "bias"]
    np.testing.assert_equal(layer.state_dict(), inner["module"].state_dict())


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_weights(model(0), path)
    before = path.read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_weights(model(1), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["model.safetensors"]
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        save_weights(model(1), tmp_path / "nowhere" / "a")


@pytest.mark.parity
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_torch_loads_ours_and_we_load_torchs(tmp_path, dtype):
    torch = need("torch")
    from safetensors.torch import load_file, save_file

    def twin():
        return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2)).to(
            getattr(torch, np.dtype(dtype).name)
        )

    ours = Sequential(Linear(4, 3, rng=0), ReLU(), Linear(3, 2, rng=1)).astype(dtype)
    theirs = twin()
    save_weights(ours, tmp_path / "ours.safetensors")
    theirs.load_state_dict(load_file(tmp_path / "ours.safetensors"))  # strict
    for name, tensor in theirs.state_dict().items():
        assert np.array_equal(tensor.numpy(), ours.state_dict()[name]) and tensor.numpy().dtype == dtype
    theirs = twin()
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    load_weights(ours, tmp_path / "theirs.safetensors")
    for name, tensor in theirs.state_dict().items():
        assert np.array_equal(tensor.numpy(), ours.state_dict()[name])


def by_hand(**tensors):
    """A safetensors file of (dtype, shape, bytes)."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    values = np.array([[1.0, -2.5, 0.0], [np.inf, 1e-37, 3.3895314e38]], np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2")
    path = tmp_path / "brain.safetensors"
    empty, one = ("BF16", [0, 3], b""), ("BF16", [], b"\xc0\x3f")
    path.write_bytes(by_hand(weight=("BF16", [2, 3], upper.tobytes()), empty=empty, one=one))
    arrays = read_weights(path)
    np.testing.assert_array_equal(arrays["weight"], (upper.astype(np.uint32) << 16).view(np.float32))
    np.testing.assert_allclose(arrays["weight"], values, rtol=2**-7)
    assert arrays["one"] == 1.5 and arrays["one"].shape == () and arrays["empty"].shape == (0, 3)
    assert all(array.dtype == np.float32 and array.dtype.isnative for array in arrays.values())


@pytest.mark.parity
def test_every_dtype_of_torch(tmp_path):
    torch = need("torch")
    from safetensors.torch import save_file

    names = "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool complex64"
    theirs = {name: torch.tensor([[0, 1, 3], [5, 7, 100]]).to(getattr(torch, name)) for name in names.split()}
    save_file(theirs, tmp_path / "all.safetensors")
    for name, array in read_weights(tmp_path / "all.safetensors").items():
        assert array.dtype == np.dtype("float32" if name == "bfloat16" else name) and array.dtype.isnative
        wanted = theirs[name].float() if name == "bfloat16" else theirs[name]
        np.testing.assert_array_equal(array, wanted.numpy())
    model, other = Linear(3, 2, rng=0), torch.nn.Linear(3, 2).to(torch.bfloat16)
    save_file(other.state_dict(), tmp_path / "brain.safetensors")
    load_weights(model, tmp_path / "brain.safetensors")
    np.testing.assert_array_equal(model.weight.data, other.weight.detach().float().numpy())
    for dtype, stored in (("float8_e4m3fn", "F8_E4M3"), ("float8_e5m2", "F8_E5M2")):
        save_file({"weight": torch.ones(2, 3).to(getattr(torch, dtype))}, tmp_path / "eight.safetensors")
        for read in (read_weights, lambda path: load_weights(model, path)):
            with pytest.raises(
                ValueError, match=rf"eight\.safetensors: weight has the dtype {stored}, expected one of F64"
            ):
                read(tmp_path / "eight.safetensors")
    assert read_metadata(tmp_path / "eight.safetensors") == {}


@pytest.mark.parity
def test_what_the_error_says_of_a_file_of_torch_works(tmp_path, monkeypatch):
    torch = need("torch")
    monkeypatch.chdir(tmp_path)
    theirs = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5, bias=False))
    theirs[1].weight = theirs[0].weight
    ours = Sequential(Embedding(5, 4, rng=0), Linear(4, 5, bias=False, rng=1))
    for number, zipped in enumerate((True, False)):
        torch.save(theirs.state_dict(), f"net{number}.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError, match=r"got a file that torch\.save wrote") as caught:
            load_weights(ours, f"net{number}.pth")
        assert "\n" not in str(caught.value)
        exec(str(caught.value).split("turns its state_dict into one: ")[1])
        load_weights(ours, f"net{number}.safetensors")
        np.testing.assert_array_equal(ours[1].weight.data, theirs[0].weight.detach().numpy())
        ours[0].weight.data += 1
        ours[1].weight.data += 1


def test_what_the_error_says_of_npz_works(tmp_path):
    import numpy

    ours, other = Linear(3, 2, rng=0), Linear(3, 2, rng=1)
    np.savez(tmp_path / "some.npz", **other.state_dict())
    with pytest.raises(ValueError, match=r"expected a safetensors file, got NumPy's \.npz; model") as caught:
        load_weights(ours, tmp_path / "some.npz")
    exec(str(caught.value).split("; ")[1].split(" loads it")[0], {"model": ours, "numpy": numpy})
    np.testing.assert_equal(ours.state_dict(), other.state_dict())
