"""The scalar at the end of the chain; its backward() starts the gradient."""

from backhand.losses.base import Loss
from backhand.losses.classification import BCEWithLogitsLoss, CrossEntropyLoss, MultiMarginLoss, NLLLoss
from backhand.losses.regression import L1Loss, MSELoss

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "L1Loss", "Loss", "MSELoss", "MultiMarginLoss", "NLLLoss"]
