"""Optimizers, schedules, clipping, the Trainer and what it leaves behind."""

from backhand.training.checkpoints import load_weights, read_metadata, read_weights, save_weights
from backhand.training.clipping import clip_grad_norm_, clip_grad_value_
from backhand.training.errors import TrainingError
from backhand.training.history import History
from backhand.training.metrics import accuracy, binary_accuracy, top_k_accuracy
from backhand.training.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from backhand.training.schedules import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR, StepLR
from backhand.training.trainer import Trainer

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "History",
    "LRScheduler",
    "LinearLR",
    "Optimizer",
    "RMSprop",
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
