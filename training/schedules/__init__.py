"""Schedules: the learning rate over time.

The names, arguments and values are those of torch.optim.lr_scheduler. In the equations t counts the calls of
`step()`, lr_0 is the rate that the optimizer was built with. The rates are computed from those of the step before,
as in torch, so that several schedules, or a hand, can change them together.
"""

from backhand.training.schedules.base import LRScheduler
from backhand.training.schedules.composed import SequentialLR
from backhand.training.schedules.cosine import CosineAnnealingLR
from backhand.training.schedules.factors import LinearLR, StepLR

__all__ = ["CosineAnnealingLR", "LRScheduler", "LinearLR", "SequentialLR", "StepLR"]
