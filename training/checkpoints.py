"""Weights on disk, in the safetensors format: torch reads these files, and its files can be read here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from backhand.layers.base import Layer, LayerError
from backhand.layers.parameter import Array
from backhand.layers.states import compare


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
