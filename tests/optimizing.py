"""What the tests of optimizers share: the arguments to try, parameters, and gradients that depend on them."""

import itertools

import numpy as np

from backhand.layers import Parameter
from backhand.training import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    GravesRMSprop,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
    Rprop,
)

SHAPES = [(4, 3), (3,), (), (2, 2, 2)]
MATRICES = [(4, 3), (2, 5), (1, 1), (3, 3)]
MAXIMIZE = {"maximize": [False, True]}
DECAYS = {"weight_decay": [0, 0.03], **MAXIMIZE}
BETAS = {"betas": [(0.9, 0.999), (0.3, 0.7), (0.0, 0.0)], "eps": [1e-8, 1e-2]}
GRID = {
    SGD: {"lr": [0.05], "momentum": [0, 0.9], "dampening": [0, 0.3], "nesterov": [False, True], **DECAYS},
    Adam: {"lr": [0.05], **BETAS, "amsgrad": [False, True], "decoupled_weight_decay": [False, True], **DECAYS},
    AdamW: {"lr": [0.05], **BETAS, "amsgrad": [False, True], **DECAYS},
    Adamax: {"lr": [0, 0.05], **BETAS, **DECAYS},
    NAdam: {
        "lr": [0.05],
        **BETAS,
        "momentum_decay": [0, 4e-3, 0.3],
        "decoupled_weight_decay": [False, True],
        **DECAYS,
    },
    RAdam: {"lr": [0.05], **BETAS, "decoupled_weight_decay": [False, True], **DECAYS},
    RMSprop: {
        "lr": [0.02],
        "alpha": [0.99, 0.5],
        "eps": [1e-8, 1e-2],
        "momentum": [0, 0.9],
        "centered": [False, True],
        **DECAYS,
    },
    Rprop: {
        "lr": [0.02, 0.3],
        "etas": [(0.5, 1.2), (0.9, 2.0)],
        "step_sizes": [(1e-6, 50), (0.01, 0.1), (0, 0.05)],
        **MAXIMIZE,
    },
    Adagrad: {
        "lr": [0.1],
        "lr_decay": [0, 0.1],
        "initial_accumulator_value": [0, 0.5],
        "eps": [1e-10, 1e-2],
        **DECAYS,
    },
    Adadelta: {"lr": [1.0, 0.1], "rho": [0.9, 0.5, 0, 1], "eps": [1e-6, 1e-2], **DECAYS},
    Muon: {
        "lr": [0.02],
        "weight_decay": [0, 0.1],
        "momentum": [0.95, 0],
        "nesterov": [True, False],
        "ns_coefficients": [(3.4445, -4.7750, 2.0315), (2.0, -1.5, 0.5)],
        "eps": [1e-7, 9.0],
        "ns_steps": [5, 0],
        "adjust_lr_fn": [None, "original", "match_rms_adamw"],
    },
    GravesRMSprop: {
        "lr": [1e-4, 0.02],
        "alpha": [0.95, 0.5],
        "eps": [1e-4, 1e-8],
        "momentum": [0.9, 0],
        **DECAYS,
    },
}
CLASSES = list(GRID)


def combinations(*classes):
    for cls in classes:
        yield cls, {}
        for values in itertools.product(*GRID[cls].values()):
            options = dict(zip(GRID[cls], values, strict=True))
            if options.get("nesterov") and cls is SGD and (not options["momentum"] or options["dampening"]):
                continue
            yield cls, options


def parameters(cls=None, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    shapes = MATRICES if cls is Muon else SHAPES
    return [Parameter(rng.standard_normal(shape).astype(dtype)) for shape in shapes]


def gradient(w, t):
    return np.sin(3 * w + t) + 0.1 * w


def run(optimizer, params, steps, start=0):
    for t in range(start, start + steps):
        optimizer.zero_grad()
        for p in params:
            p.grad += gradient(p.data, t)
        optimizer.step()


def values(params):
    return [p.data.copy() for p in params]


def close(a, b, tolerance=1e-12):
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and np.abs(a - b).max() <= tolerance * np.abs(b).max()
