"""Weights on disk, in the safetensors format: torch reads these files, and its files can be read here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from backhand.layers.base import IncompatibleKeys, Layer
from backhand.layers.parameter import Array


def save_weights(model: Layer, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write all parameters and buffers to a file, which holds either all of them or what it held before.

    metadata : words that travel with the weights (the model's name, the test accuracy)
    """
    from safetensors.numpy import save

    words = {str(name): str(value) for name, value in (metadata or {}).items()}
    write_atomically(path, save(model.state_dict(), words or None))


def load_weights(model: Layer, path: str | os.PathLike[str], strict: bool = True) -> IncompatibleKeys:
    """Copy the weights in a file into a model, in place.

    strict : False lets names be missing or unexpected, and returns them
    Raises FileNotFoundError or ValueError that name the file, or the LayerError of `load_state_dict` where the
    weights do not fit; then nothing has been changed.
    """
    return model.load_state_dict(read_weights(path), strict)


def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays in a safetensors file, by name."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    name = os.fspath(path)
    with open(name, "rb") as file:
        content = file.read()
    try:
        return load(content)
    except SafetensorError as error:
        raise ValueError(f"{name}: cut short, or not a safetensors file ({error})") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}: holds a dtype that NumPy does not have ({error})") from None


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The words that were saved with the weights."""
    from safetensors import SafetensorError, safe_open

    name = os.fspath(path)
    with open(name, "rb"):  # an error of its own where there is no such file
        pass
    try:
        with safe_open(name, framework="numpy") as file:
            return dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{name}: cut short, or not a safetensors file ({error})") from None


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
