"""The Vision Transformer and the U-Net: counts, names, shapes, and torch beside them."""

import itertools
import sys
from types import ModuleType

import numpy as np
import pytest

from backhand.layers import LayerError
from backhand.models import UNet, ViT
from tests.conftest import need

rng = np.random.default_rng(0)


def count(model):
    return sum(p.size for p in model.parameters())


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (lambda: ViT(rng=0), 86_567_656),
        (lambda: ViT(224, 32, rng=0), 88_224_232),
        (lambda: UNet(1, 2, rng=0), 31_030_658),
        (lambda: UNet(3, 1, (32, 64, 128, 256, 512), 1, True, rng=0), 7_763_041),
    ],
    ids=["vit_b_16", "vit_b_32", "UNet of the paper", "UNet of the hub"],
)
def test_parameters(model, wanted):
    assert count(model()) == wanted


def test_the_start_of_a_vit_gives_every_class_the_same_score():
    assert not ViT(8, 4, 1, 2, 8, 8, num_classes=3, rng=0)(rng.standard_normal((2, 3, 8, 8))).any()


def compare(ours, theirs, x, torch, dout=None):
    """The weights go there, and outputs and all gradients agree in float64."""
    state = {key: torch.from_numpy(np.asarray(value)) for key, value in ours.state_dict().items()}
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    tx = torch.from_numpy(x).requires_grad_()
    ty = theirs(tx)
    dout = rng.standard_normal(ty.shape)
    ty.backward(torch.from_numpy(dout))
    y = ours(x)
    dx = ours.backward(dout)
    pairs = [(y, ty.detach().numpy()), (dx, tx.grad.numpy())]
    pairs += [(p.grad, q.grad.numpy()) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True)]
    for a, b in pairs:
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) <= 1e-9 * max(np.linalg.norm(b), 1e-3)


@pytest.mark.parity
def test_vit_beside_torchvision(torch):
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))
    theirs = need("torchvision").models.VisionTransformer(16, 4, 3, 2, 8, 12, num_classes=5).double()
    ours = ViT(16, 4, 3, 2, 8, 12, num_classes=5, rng=0).astype(np.float64)
    for parameter in ours.parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.shape)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    for parameter in ours.parameters():
        parameter.data += 0.1 * rng.standard_normal(parameter.shape)
    compare(ours, theirs, rng.standard_normal((3, 3, 16, 16)), torch)


@pytest.mark.parity
@pytest.mark.parametrize(("padding", "norm", "size"), [(0, False, (44, 60)), (1, True, (8, 16)), (1, False, (12, 4))])
def test_unet_beside_torch(torch, padding, norm, size):
    nn = torch.nn
    widths = (3, 4, 6)

    def twice(a, b):
        parts = []
        for before in (a, b):
            parts += [nn.Conv2d(before, b, 3, padding=padding, bias=not norm), *[nn.BatchNorm2d(b)] * norm, nn.ReLU()]
        return nn.Sequential(*parts)

    class Theirs(nn.Module):
        def __init__(self):
            super().__init__()
            self.downs = nn.ModuleList(twice(a, b) for a, b in itertools.pairwise((2, *widths[:-1])))
            self.bottom = twice(widths[-2], widths[-1])
            ups = []
            for below, above in reversed(list(itertools.pairwise(widths))):
                ups += [nn.ConvTranspose2d(above, below, 2, 2), twice(2 * below, below)]
            self.ups = nn.ModuleList(ups)
            self.last = nn.Conv2d(widths[0], 2, 1)

        def forward(self, x):
            kept = []
            for down in self.downs:
                kept.append(down(x))
                x = nn.functional.max_pool2d(kept[-1], 2)
            x = self.bottom(x)
            for up, twice in zip(self.ups[::2], self.ups[1::2], strict=True):
                x = up(x)
                bridge = kept.pop()
                top, left = ((a - b) // 2 for a, b in zip(bridge.shape[2:], x.shape[2:], strict=True))
                x = twice(torch.cat([x, bridge[:, :, top : top + x.shape[2], left : left + x.shape[3]]], dim=1))
            return self.last(x)

    ours = UNet(2, 2, widths, padding, norm, rng=0).astype(np.float64)
    compare(ours, Theirs().double(), rng.standard_normal((2, 2, *size)), torch)


def test_the_paper_s_size_and_which_sizes_fit():
    model = UNet(1, 2, (2, 2, 2, 2, 2), rng=0)
    assert model.eval()(np.zeros((1, 1, 572, 572), np.float32)).shape == (1, 2, 388, 388)
    with pytest.raises(LayerError, match="near 570, 572 or 556 or 540 fit"):
        model(np.zeros((1, 1, 570, 572), np.float32))
    with pytest.raises(LayerError, match="near 3, 4 or 8 or 12 fit"):
        UNet(1, 2, (2, 2, 2), 1)(np.zeros((1, 1, 3, 4), np.float32))


def test_wrong_calls():
    with pytest.raises(ValueError, match="image_size to be a multiple of patch_size=16, got 30"):
        ViT(30)
    with pytest.raises(LayerError, match=r"expected x of shape \(N, 3, 8, 8\), got \(1, 3, 8, 9\)"):
        ViT(8, 4, 1, 1, 4, 4)(np.zeros((1, 3, 8, 9)))
    with pytest.raises(ValueError, match="padding to be 0 or 1"):
        UNet(padding=2)
    wanted = "image_size=8, patch_size=4, num_layers=1, num_heads=1, hidden_dim=4, mlp_dim=4, num_classes=2"
    assert repr(ViT(8, 4, 1, 1, 4, 4, num_classes=2)) == f"ViT({wanted})"
