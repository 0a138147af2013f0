"""The named architectures: their shapes, counts and names, and what they refuse."""

import numpy as np
import pytest

from backhand.layers import LayerError, Tanh
from backhand.models import MLP, ConvNet, LeNet5


def count(model):
    return sum(p.size for p in model.parameters())


def test_lenet_has_the_published_count():
    model = LeNet5(rng=0)
    assert count(model) == 61_706
    assert model(np.zeros((2, 1, 28, 28))).shape == (2, 10)
    assert list(model.state_dict())[:4] == ["c1.weight", "c1.bias", "c3.weight", "c3.bias"]
    assert count(LeNet5(image_size=32)) == 61_706
    assert LeNet5(5, 3, 32, rng=0)(np.zeros((1, 3, 32, 32))).shape == (1, 5)
    with pytest.raises(ValueError, match="LeNet5: expected image_size 28 or 32, got 8"):
        LeNet5(image_size=8)


def test_lenet_names_the_layer_that_a_wrong_image_meets():
    with pytest.raises(LayerError, match=r"Conv2d\(1, 6, 5.* at 'c1'"):
        LeNet5()(np.zeros((2, 3, 28, 28)))


def test_mlp():
    model = MLP(784, 256, 128, 10, dropout=0.5, rng=0)
    assert count(model) == 235_146
    assert [name for name, _ in model.named_parameters()] == [
        f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")
    ]
    assert model(np.zeros((4, 1, 28, 28))).shape == (4, 10)
    assert repr(MLP(4, 3)) == "MLP(4, 3)"
    assert repr(MLP(4, 5, 3, dropout=0.5, rng=0)) == "MLP(4, 5, 3, dropout=0.5)"
    assert [type(layer).__name__ for layer in MLP(4, 5, 3, activation=Tanh)] == ["Flatten", "Linear", "Tanh", "Linear"]
    with pytest.raises(ValueError, match="at least two sizes"):
        MLP(784)
    with pytest.raises(ValueError, match="dropout"):
        MLP(4, 3, dropout=1.5)


def test_convnet():
    model = ConvNet(rng=0)
    # 3x3 convolutions without bias, weight and bias of the norms, the linear layer on 4x4 maps
    assert count(model) == 9 * (3 * 32 + 32 * 64 + 64 * 128) + 2 * (32 + 64 + 128) + 128 * 16 * 10 + 10
    assert model(np.zeros((2, 3, 32, 32))).shape == (2, 10)
    assert "bn1.running_mean" in model.state_dict()
    with pytest.raises(ValueError, match="at least 8 pixels a side for 3 blocks, got 4x4"):
        ConvNet(10, (1, 4, 4))


@pytest.mark.parametrize("make", [lambda rng: MLP(5, 4, 3, rng=rng), lambda rng: ConvNet(rng=rng), LeNet5])
def test_a_seed_makes_the_weights(make):
    a, b, c = (make(rng=seed).state_dict() for seed in (1, 1, 2))
    assert all(a[name].tobytes() == b[name].tobytes() for name in a)
    assert any(a[name].tobytes() != c[name].tobytes() for name in a)
