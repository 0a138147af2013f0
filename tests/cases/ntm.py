"""The pieces of the Neural Turing Machine, and the machine itself over a few steps."""

import numpy as np

from backhand.layers import (
    Addressing,
    CircularShift,
    ContentAddressing,
    Interpolation,
    InverseNorms,
    MemoryRead,
    MemoryWrite,
    Sharpening,
    UnitVectors,
)
from backhand.losses import SequenceBCELoss
from backhand.models import NTM, HeadParameters
from tests.cases import Case, uniform

B, H, N, M, S = 2, 2, 5, 3, 3


def weighting(*shape: int, seed: int = 0) -> np.ndarray:
    w = uniform(*shape, seed=seed)
    return w / w.sum(axis=-1, keepdims=True)


LOOK = [
    (B, H, M),
    uniform(B, H, 1, low=0.5, high=4),
    uniform(B, H, 1, seed=1),
    weighting(B, H, S, seed=2),
    uniform(B, H, 1, low=1, high=4, seed=3),
    weighting(B, H, N, seed=4),
    (B, N, M),
    uniform(B, N, low=0.5, high=2, seed=5),
]

CASES = [
    Case(UnitVectors, (), [(2, 3, 4)]),
    Case(UnitVectors, (0.5,), [(4,)]),
    Case(InverseNorms, (), [(2, 3, 4)]),
    Case(InverseNorms, (0.5,), [(4,)]),
    Case(ContentAddressing, (), [(B, H, M), uniform(B, H, 1), (B, N, M), uniform(B, N, seed=1)]),
    Case(Interpolation, (), [uniform(B, H, 1), (B, H, N), (B, H, N)]),
    Case(CircularShift, (), [(B, H, N), weighting(B, H, S)]),
    Case(CircularShift, (), [(B, H, 6), weighting(B, H, 5)]),
    Case(Sharpening, (), [weighting(B, H, N), uniform(B, H, 1, low=1, high=4)]),
    Case(Addressing, (), LOOK),
    Case(MemoryRead, (), [weighting(B, H, N), (B, N, M)]),
    Case(MemoryWrite, (), [(B, N, M), weighting(B, 1, N), uniform(B, 1, M), (B, 1, M)]),
    Case(MemoryWrite, (), [(B, N, M), weighting(B, 3, N), uniform(B, 3, M), (B, 3, M)]),
    Case(HeadParameters, (3, 2, 1), [(2, HeadParameters(3, 2, 1).size)]),
    Case(NTM, (3, 2, 4, "feedforward", (5, 3), 1, 2), [(5, 2, 3)]),
    Case(NTM, (3, 2, 4, "lstm", (5, 3), 2, 1), [(5, 1, 3)]),
    Case(SequenceBCELoss, (), [(5, 3, 2), uniform(3, 3, 2)]),
    Case(SequenceBCELoss, (), [(2, 3, 2), uniform(2, 3, 2)], kwargs={"reduction": "none"}),
    Case(SequenceBCELoss, (), [(4, 1, 2), uniform(3, 1, 2)], kwargs={"reduction": "sum"}),
]
