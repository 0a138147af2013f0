"""Schedules: the learning rate over time.

The names, arguments and values are those of torch.optim.lr_scheduler. In the equations t counts the calls of
`step()`, lr_0 is the rate that the optimizer was built with. The rates are computed from those of the step before,
as in torch, so that several schedules, or a hand, can change them together.
"""

from backhand.training.schedules.base import LRScheduler
from backhand.training.schedules.composed import ChainedScheduler, SequentialLR
from backhand.training.schedules.cosine import CosineAnnealingLR, CosineAnnealingWarmRestarts
from backhand.training.schedules.cycles import CyclicLR, OneCycleLR
from backhand.training.schedules.factors import (
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiplicativeLR,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from backhand.training.schedules.plateau import ReduceLROnPlateau

__all__ = [
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "MultiplicativeLR",
    "OneCycleLR",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
]
