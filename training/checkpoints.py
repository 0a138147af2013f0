"""Weights on disk, in the safetensors format: torch reads these files, and its files can be read here."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from backhand.datasets.file_kinds import (
    ADVICE,
    EMPTY,
    GGUF,
    HDF5,
    INDEX,
    KERAS,
    NPY,
    NPZ,
    ONNX,
    PICKLE,
    SAFETENSORS,
    TENSORFLOW,
    TFLITE,
    TORCH,
    ZEROS,
    kind_of,
)
from backhand.layers.base import Layer, LayerError
from backhand.layers.parameter import Array
from backhand.layers.states import compare

# The dtypes of safetensors that NumPy has; all are stored little-endian.
DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "C64": "<c8",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}


def save_weights(model: Layer, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write all parameters and buffers to a file, which holds either all of them or what it held before.

    metadata : words that travel with the weights (the model's name, the test accuracy)
    """
    from safetensors.numpy import save

    words = {str(name): str(value) for name, value in (metadata or {}).items()}
    write_atomically(path, save(model.state_dict(), words or None))


class WeightsReport(NamedTuple):
    """What a file of weights and a model have in common, and what not; prints as a table.

    missing_keys : of the model alone      unexpected_keys : of the file alone
    misshapen_keys : in both, with different shapes      loaded_keys : what was copied
    shapes : for each of the misshapen ones, the shape in the model and that in the file
    excused_keys : what is not in the file and need not be, and why: of an array with two names, one is enough
    """

    missing_keys: list[str]
    unexpected_keys: list[str]
    misshapen_keys: list[str]
    loaded_keys: list[str]
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    excused_keys: dict[str, str] = {}

    def __str__(self) -> str:
        shapes = {name: f"{model} here, {file} in the file" for name, (model, file) in self.shapes.items()}
        lines = [f"{len(self.loaded_keys)} arrays loaded"]
        for what, keys, about in (
            ("not in the file, and not missing", self.excused_keys, self.excused_keys),
            ("missing, left as they were", self.missing_keys, {}),
            ("misshapen, left as they were", self.misshapen_keys, shapes),
            ("unexpected, not used", self.unexpected_keys, {}),
        ):
            lines += [f"{len(keys)} {what}:"] * bool(keys)
            lines += [f"  {key}: {about[key]}" if key in about else f"  {key}" for key in keys]
        return "\n".join(lines)


def load_weights(
    model: Layer,
    path: str | os.PathLike[str],
    strict: bool = True,
    *,
    misshapen: bool = False,
    prefix: str = "",
) -> WeightsReport:
    """Copy the weights in a file into a model, in place; print what comes back to see what was copied.

    strict : False lets names be missing or unexpected
    misshapen : True leaves alone what has another shape, the head of a network for other classes, say
    prefix : is taken off the names in the file, where they have it: "module.", say
    Raises FileNotFoundError or ValueError that name the file, or the LayerError of `load_state_dict` where the
    weights do not fit; then nothing has been changed.
    """
    found = compare(model, {name.removeprefix(prefix): array for name, array in read_weights(path).items()})
    if problems := found.problems(strict, misshapen):
        raise LayerError(model, f"{os.fspath(path)} does not fit; {problems}")
    found.copy()
    return WeightsReport(
        found.missing, found.unexpected, list(found.misshapen), list(found.arrays), found.misshapen, found.excused
    )


def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays in a safetensors file, by name; those in bfloat16, which NumPy does not have, in float32.

    Raises FileNotFoundError or ValueError that name the file, and say what it is instead.
    """
    from safetensors import SafetensorError, deserialize

    name = os.fspath(path)
    content = _content(name)
    try:
        stored = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise ValueError(_not_safetensors(name, content, error)) from None
    arrays = {}
    for key, tensor in stored:
        bits, shape = tensor["data"], tensor["shape"]
        if tensor["dtype"] == "BF16":  # the upper half of a float32
            array = (np.frombuffer(bits, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif tensor["dtype"] in DTYPES:
            dtype = np.dtype(DTYPES[tensor["dtype"]])
            array = np.frombuffer(bits, dtype).astype(dtype.newbyteorder("="), copy=False)
        else:
            expected = f"one of {', '.join((*DTYPES, 'BF16'))}"
            raise ValueError(f"{name}: {key} has the dtype {tensor['dtype']}, expected {expected}; convert it first")
        arrays[key] = array.reshape(shape)
    return arrays


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The words that were saved with the weights."""
    from safetensors import SafetensorError, safe_open

    name = os.fspath(path)
    if os.path.isdir(name) or not os.path.exists(name):
        _content(name)  # which says so
    try:
        with safe_open(name, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(_not_safetensors(name, _content(name), error)) from None


def _content(name: str) -> bytes:
    """The whole file; of a folder, the files in it that one may have meant."""
    if os.path.isdir(name):
        inside = sorted(each for each in os.listdir(name) if each.endswith(".safetensors"))
        hint = f"give {' or '.join(os.path.join(name, each) for each in inside[:3])}" if inside else "it holds none"
        raise ValueError(f"{name}: expected a safetensors file, got a folder; {hint}")
    with open(name, "rb") as file:
        return file.read()


def _not_safetensors(name: str, content: bytes, error: Exception) -> str:
    """What a file is that cannot be read, and what to do with it, in one line."""
    kind = kind_of(content)
    if kind in (None, SAFETENSORS, ZEROS, EMPTY):
        kind, what = None, f" ({kind or error})" if kind != SAFETENSORS else f" ({error})"
        return f"{name}: cut short, or not a safetensors file{what}"
    new = f"{os.path.splitext(name)[0]}.safetensors"
    if kind == INDEX:
        files = sorted(set(json.loads(content)["weight_map"].values()))
        what = f"the weights are in {', '.join(map(str, files))}: load each with strict=False"
    elif kind in (TORCH, PICKLE):
        read = f'torch.load({name!r}, map_location="cpu", weights_only=True)'
        what = (
            "never opened here, for it may run any code; PyTorch turns its state_dict into one: "
            f"import torch; from safetensors.torch import save_file; "
            f"save_file({{k: v.clone().contiguous() for k, v in {read}.items()}}, {new!r})"
        )
    elif kind == NPZ:
        what = f"model.load_state_dict(numpy.load({name!r})) loads it, where its names are the model's"
    elif kind in (NPY, KERAS, HDF5, ONNX, TENSORFLOW, TFLITE, GGUF):
        what = f"read it with its own library, and save a dict of arrays with safetensors.numpy.save_file(..., {new!r})"
    else:
        what = ADVICE.get(kind or "", "give the file of the weights themselves")
    return f"{name}: expected a safetensors file, got {kind}; {what}"


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside its place and move it there when it is whole."""
    name = os.fspath(path)
    beside = f"{name}.{os.getpid()}.part"
    try:
        with open(beside, "wb") as file:
            file.write(content)
        os.replace(beside, name)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
