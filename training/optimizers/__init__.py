"""Optimizers: what is done with the gradients.

The names, arguments, defaults and arithmetic are those of torch.optim. What differs is the storage: an optimizer
moves the parameters of a group onto one flat vector (their `data` and `grad` become views of it), so an update is
a few whole-vector operations however many layers there are.

In the equations g is the gradient, w a parameter, t the number of the step. Arguments that mean the same wherever
they are taken:

    lr : the learning rate        eps : keeps a division finite
    maximize : g = -g first        weight_decay : then g = g + weight_decay w, the gradient of an L2 penalty
"""

from backhand.training.optimizers.adam import Adam, Adamax, AdamW, NAdam, RAdam
from backhand.training.optimizers.base import Optimizer
from backhand.training.optimizers.blocks import Block
from backhand.training.optimizers.momentum import SGD
from backhand.training.optimizers.muon import Muon
from backhand.training.optimizers.rms import Adadelta, Adagrad, GravesRMSprop, RMSprop
from backhand.training.optimizers.rprop import Rprop

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Block",
    "GravesRMSprop",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
]
