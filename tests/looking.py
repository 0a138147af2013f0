"""Whether a look at a model has left it as it was, to the bit."""

import contextlib
import pickle

import numpy as np

from backhand.inspection.gradient_check import generators_of


def state(layer):
    """All that could be changed: weights, gradients (stale or not), buffers, modes, generators, stacks, attributes."""
    return (
        pickle.dumps(layer),
        [repr(g.bit_generator.state) for g in generators_of(layer)],
        [list(vars(each)) for each in layer.modules()],
        [[id(entry) for entry in vars(each).get("_stack", [])] for each in layer.modules()],
        [p.grad.tobytes() for p in layer.parameters()],
        [(id(p.data), id(p.grad)) for p in layer.parameters()],
    )


@contextlib.contextmanager
def untouched(*layers):
    before = [state(layer) for layer in layers]
    legacy = repr(np.random.get_state())  # noqa: NPY002
    yield
    assert [state(layer) for layer in layers] == before
    assert repr(np.random.get_state()) == legacy  # noqa: NPY002


def used(layer, *arrays):
    """The layer, with a forward that waits on the stacks and gradients that are not zero."""
    layer(*arrays)
    rng = np.random.default_rng(5)
    for parameter in layer.parameters():
        parameter.grad += rng.standard_normal(parameter.shape)
    return layer
