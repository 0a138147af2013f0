"""The published architectures: their names, and torchvision beside them; what is counted is in test_counts.py."""

import itertools

import numpy as np
import pytest

from backhand.layers import LayerError
from backhand.models import VGG, AlexNet, AlexNet2012, CifarAlexNet, CifarResNet, MobileNetV2, ResNet
from benchmarks import networks

rng = np.random.default_rng(0)


def test_keys():
    keys = list(ResNet(18, rng=0).state_dict())
    assert len(keys) == 122 and sum(key.endswith("num_batches_tracked") for key in keys) == 20
    assert {"layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_var", "layer4.1.bn2.bias", "fc.bias"} <= {
        *keys
    }
    parts = [(f"features.{i}", f"classifier.{j}") for i, j in itertools.zip_longest((0, 3, 6, 8, 10), (1, 4, 6))]
    names = [name for name in itertools.chain(*zip(*parts, strict=True)) if "None" not in name]
    assert list(AlexNet(rng=0).state_dict()) == [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def test_wrong_calls():
    with pytest.raises(ValueError, match="depth to be one of 11, 13, 16, 19, got 12"):
        VGG(12)
    with pytest.raises(ValueError, match="depth to be 6 n \\+ 2, got 21"):
        CifarResNet(21)
    with pytest.raises(LayerError, match=r"at 'conv1': expected x of shape"):
        ResNet(18, 10, rng=0)(np.zeros((1, 1, 32, 32)))
    assert repr(ResNet(50, 10, rng=0)) == "ResNet(depth=50, num_classes=10)"


@pytest.mark.parametrize("model", [CifarResNet(8, rng=0), CifarAlexNet(rng=0)], ids=lambda model: type(model).__name__)
def test_all_gradients_along_one_direction(model):
    model.astype(np.float64)
    x, dout = rng.standard_normal((2, 3, 32, 32)), rng.standard_normal((2, 10))
    model.zero_grad()
    model(x)
    dx = model.backward(dout)
    arrays = [x, *(p.data for p in model.parameters())]
    gradients = [dx, *(p.grad.copy() for p in model.parameters())]
    steps = [rng.standard_normal(a.shape) * np.abs(a).mean() for a in arrays]

    def moved(h):
        for array, step in zip(arrays, steps, strict=True):
            array += h * step
        value = (model(x) * dout).sum()
        for array, step in zip(arrays, steps, strict=True):
            array -= h * step
        return value

    numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6
    assert sum((g * s).sum() for g, s in zip(gradients, steps, strict=True)) == pytest.approx(numeric, rel=1e-5)


BESIDE = [
    (AlexNet, (10,), "alexnet", 64),
    (VGG, (11, 10), "vgg11", 32),
    (VGG, (16, 10, True), "vgg16_bn", 32),
    (ResNet, (18, 10), "resnet18", 64),
    (ResNet, (50, 10), "resnet50", 64),
    (MobileNetV2, (10,), "mobilenet_v2", 64),
]


@pytest.mark.parity
@pytest.mark.parametrize(("cls", "arguments", "name", "size"), BESIDE, ids=[row[2] for row in BESIDE])
def test_beside_torchvision(torch, torchvision, cls, arguments, name, size):
    options = {} if "resnet" in name else {"dropout": 0.0}
    theirs = torchvision.models.get_model(name, num_classes=10, **options).double()
    ours = cls(*arguments, rng=0).astype(np.float64)
    for layer in ours.modules():
        if type(layer).__name__ == "Dropout":
            layer.p = 0.0
    # the weights travel both ways, under the same names in the same order
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in ours.state_dict().items()})
    x = rng.standard_normal((2, 3, size, size))
    dout = rng.standard_normal((2, 10))
    tx = torch.from_numpy(x).requires_grad_()
    ty = theirs(tx)
    ty.backward(torch.from_numpy(dout))
    y = ours(x)
    dx = ours.backward(dout)
    gradients = {key: p.grad.numpy() for key, p in theirs.named_parameters()}
    pairs = [(y, ty.detach().numpy()), (dx, tx.grad.numpy())]
    pairs += [(p.grad, gradients[key]) for key, p in ours.named_parameters()]
    for a, b in pairs:
        assert np.linalg.norm(a - b) <= 1e-9 * max(np.linalg.norm(b), 1e-3)


@pytest.mark.parity
def test_alexnet_2012_beside_torch(torch):
    theirs = networks.alexnet_2012(torch.nn, 10).double()
    ours = AlexNet2012(10, dropout=0.0, rng=0).astype(np.float64)
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()})
    x, dout = rng.standard_normal((2, 3, 227, 227)), rng.standard_normal((2, 10))
    tx = torch.from_numpy(x).requires_grad_()
    ty = theirs(tx)
    ty.backward(torch.from_numpy(dout))
    pairs = [(ours(x), ty.detach().numpy()), (ours.backward(dout), tx.grad.numpy())]
    pairs += [(p.grad, q.grad.numpy()) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)]
    for a, b in pairs:
        assert np.linalg.norm(a - b) <= 1e-9 * np.linalg.norm(b)
