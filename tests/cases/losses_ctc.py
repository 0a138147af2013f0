"""CTC: its gradient is by scores before a log-softmax, so that is what check_layer looks at."""

import numpy as np

from backhand.layers.softmax import log_softmax
from backhand.losses import CTCLoss
from tests.cases import Case, grid
from tests.cases.losses import EXTREME, REDUCTIONS


class OfScores(CTCLoss):
    """CTCLoss behind a log-softmax."""

    def forward(self, x, *others):
        logp = log_softmax(x, -1)
        value = super().forward(logp, *others)
        if self.caching:
            self.kept = [*getattr(self, "kept", []), np.exp(logp)]
        return value

    def backward(self, dout=None):
        dlogp = super().backward(dout)
        return dlogp - self.kept.pop() * dlogp.sum(-1, keepdims=True)


def logp(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Log-probabilities over the last axis."""
    return log_softmax(scale * np.random.default_rng(seed).standard_normal(shape), -1)


T, N, C = 7, 3, 4
TARGETS = np.array([[1, 2, 2], [3, 1, -9], [2, -9, 99]])  # what is beyond a target's length is not looked at
LENGTHS = np.array([3, 2, 1])
ROW = np.array([1, 2, 2, 3, 1, 2])
BLANK_2 = np.array([[0, 0, 1], [1, 3, 0], [3, 3, 3]])

CASES = [
    *(
        Case(CTCLoss, (), [(T, N, C), TARGETS, np.array([7, 5, 6]), LENGTHS], checked=OfScores, kwargs={"reduction": r})
        for r in REDUCTIONS
    ),
    Case(CTCLoss, (2,), [(T, N, C), BLANK_2, np.array([7, 6, 5]), np.array([3, 0, 3])], checked=OfScores),
    Case(CTCLoss, (0, "none", True), [(T, N, C), ROW, np.array([1, 2, 0]), LENGTHS], checked=OfScores),
    Case(CTCLoss, (), [(T, C), np.array([1, 1, 2]), np.array(6), np.array(3)], checked=OfScores),
]

GRID = [
    *(
        case
        for targets, lengths in [
            (TARGETS, LENGTHS),
            (ROW, LENGTHS),
            (np.ones((3, 5), int), np.array([5, 4, 3])),  # all the same: a blank between each two
            (BLANK_2, np.array([0, 0, 0])),
            (np.zeros((3, 0), int), np.array([0, 0, 0])),
            (np.zeros(0, int), np.array([0, 0, 0])),
            (TARGETS.astype(float), LENGTHS),
        ]
        for steps in ([7, 7, 7], [7, 5, 2], [1, 3, 4], [0, 4, 0])
        for case in grid(
            CTCLoss,
            [logp(T, N, C, scale=2.0), targets, np.array(steps), lengths],
            reduction=REDUCTIONS,
            zero_infinity=[False, True],
        )
    ),
    *(
        Case(CTCLoss, (blank,), [logp(T, N, C), (BLANK_2 + blank + 2) % C, np.array([7, 7, 6]), np.array([3, 2, 3])])
        for blank in range(C)
    ),
    *(
        Case(CTCLoss, (0, r, zero), [logp(T, C), targets, steps, length])
        for r in REDUCTIONS
        for zero in (False, True)
        for targets, length in [
            (np.array([1, 1]), 2),
            (np.array([[3, 1, 1]]), 2),
            (np.array([2]), 1),
            (np.zeros(0, int), 0),
        ]
        for steps, length in [(np.array(7), np.array(length)), (np.array([2]), np.array([length]))]
    ),
    *(
        Case(CTCLoss, (0, r), [log_softmax(EXTREME, -1)[:, None], np.array([targets]), np.array([4]), np.array([2])])
        for r in REDUCTIONS
        for targets in ([1, 2], [3, 3], [3, 1])
    ),
    Case(CTCLoss, (), [logp(T, 1, 1), np.zeros((1, 0), int), np.array([7]), np.array([0])]),  # only the blank
    *(
        Case(CTCLoss, (), [logp(60, 2, C, seed=s, scale=20.0), ROW, np.array([60, 55]), np.array([2, 4])])
        for s in range(3)
    ),
    *(
        Case(CTCLoss, (), [(T, N, C), TARGETS, np.array([7, 5, 6]), LENGTHS], kwargs={"reduction": r})
        for r in REDUCTIONS
    ),
]
