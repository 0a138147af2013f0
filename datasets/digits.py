"""The handwritten digits that come with the package."""

from __future__ import annotations

import io
from importlib import resources

import numpy as np
from numpy.typing import DTypeLike

from backhand.datasets.base import Data, Splits, count, pixel_dtype, pixels
from backhand.datasets.split import stratified


def load_digits(
    validation: int = 180,
    test: int = 360,
    *,
    rng: np.random.Generator | int | None = 0,
    dtype: DTypeLike = np.float32,
) -> Splits:
    """1,797 handwritten digits of 8 x 8 pixels, split into 1,257 to train, 180 to validate, 360 to test.

    x : (N, 1, 8, 8), ink from 0 to 1 (stored as 0 to 16)      y : (N,), the digit

    validation, test : samples in those parts; the rest is for training
    rng : the generator or seed that splits them (stratified by digit); the default is the same split every time
    dtype : of x; np.uint8 gives the values from 0 to 16 as stored
    Alpaydin & Kaynak 1998, doi:10.24432/C50P49, CC BY 4.0; see data/digits-ATTRIBUTION.txt
    """
    wanted = pixel_dtype(dtype)
    packed = (resources.files("backhand.datasets") / "data" / "digits.npz").read_bytes()
    with np.load(io.BytesIO(packed), allow_pickle=False) as archive:
        x, y = archive["images"][:, None], archive["labels"].astype(np.int64)
    test = count("test", test, 0, len(y) - 1)
    validation = count("validation", validation, 0, len(y) - 1 - test)
    x = pixels(x, wanted, white=16)
    parts = stratified(y, (len(y) - validation - test, validation, test), rng)
    train, held_out, kept_back = (Data(x[part], y[part]) for part in parts)
    return Splits(train, held_out, kept_back, classes=tuple("0123456789"))
