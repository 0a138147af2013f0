"""What may be given as an array."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_numbers(expected: str, data: Any, axes: int = 1) -> Any:
    """Data as an array of numbers: itself where it is one (mapped from a file, say), else made of it.

    expected : the beginning of the ValueError for what is none       axes : it must have so many, or more
    """
    parts = data if isinstance(data, (list, tuple)) else ()
    if isinstance(data, np.ma.MaskedArray) or any(isinstance(part, np.ma.MaskedArray) for part in parts):
        raise ValueError(
            f"{expected} to be a plain array, got a masked one, whose mask would be lost; "
            "fill it (x.filled(...)), or leave out what is masked"
        )
    try:
        array = data if isinstance(data, np.ndarray) else np.asarray(data)
    except Exception as error:  # lists of different lengths, or another library's array that cannot be one of NumPy's
        raise ValueError(f"{expected} to be an array of numbers, got {describe(data)} ({error})") from None
    if array.ndim < axes or array.dtype.kind not in "fiub":
        first = " with the samples on its first axis" if axes else ""
        hint = "; give its .toarray()" if hasattr(data, "toarray") else ""
        raise ValueError(f"{expected} to be an array of numbers{first}, got {describe(data)}{hint}")
    return array


def describe(data: Any) -> str:
    """A few words on what was given."""
    if isinstance(data, np.ndarray):
        return f"an array of shape {data.shape} and dtype {data.dtype}"
    return f"{type(data).__name__} {data!r}"[:60]
