"""Optimizers, schedules, clipping, the Trainer and what it leaves behind."""

from backhand.training.checkpoints import load_weights, read_metadata, read_weights, save_weights
from backhand.training.clipping import clip_grad_norm_, clip_grad_value_
from backhand.training.errors import TrainingError
from backhand.training.history import History
from backhand.training.metrics import accuracy, binary_accuracy, top_k_accuracy
from backhand.training.optimizers import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    GravesRMSprop,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
)
from backhand.training.schedules import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR, StepLR
from backhand.training.trainer import Trainer

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "CosineAnnealingLR",
    "GravesRMSprop",
    "History",
    "LRScheduler",
    "LinearLR",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SequentialLR",
    "StepLR",
    "Trainer",
    "TrainingError",
    "accuracy",
    "binary_accuracy",
    "clip_grad_norm_",
    "clip_grad_value_",
    "load_weights",
    "read_metadata",
    "read_weights",
    "save_weights",
    "top_k_accuracy",
]
