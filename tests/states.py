"""A layer as a user writes one, and whether a layer has stayed as it was."""

import numpy as np

from backhand.layers import Layer, Linear, Parameter, Tanh


class Scale(Layer):
    """A user's layer: no super().__init__(), a list of layers, a buffer."""

    buffer_names = ("seen",)

    def __init__(self):
        self.factor = Parameter(np.full(3, 2.0))
        self.inner = [Linear(3, 3, rng=0), Tanh()]
        self.named = {"last": Linear(3, 2, rng=1)}
        self.seen = np.array(0)

    def forward(self, x):
        self.save(x)
        self.seen += 1
        for layer in self.inner:
            x = layer(x * self.factor.data)
        return self.named["last"](x)

    def backward(self, dout):
        return dout


def snapshot(layer):
    arrays = {**layer.state_dict(), **{f"d {name}": p.grad.copy() for name, p in layer.named_parameters()}}
    stacks = {name: len(vars(each).get("_stack", [])) for name, each in layer.named_modules()}
    return arrays, stacks


def assert_unchanged(layer, before):
    arrays, stacks = snapshot(layer)
    assert {k: v for k, v in stacks.items() if v} == {k: v for k, v in before[1].items() if v}
    assert arrays.keys() == before[0].keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[0][name], err_msg=name)
