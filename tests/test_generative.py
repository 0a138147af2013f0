"""VAE, GAN, DDPM, autoencoders and SimCLR: published counts, golden values, torch beside them, and that they learn."""

import numpy as np
import pytest

from backhand.inspection import check_gradients
from backhand.layers import Layer, LayerError
from backhand.losses import BCEWithLogitsLoss, ELBOLoss, MSELoss, NTXentLoss
from backhand.models import (
    DDPM,
    VAE,
    Autoencoder,
    ConvAutoencoder,
    ConvNet,
    DiffusionUNet,
    Discriminator,
    Generator,
    Reparameterize,
    SimCLR,
)
from backhand.training import Adam

rng = np.random.default_rng(0)


def count(model):
    return sum(p.size for p in model.parameters())


# ---------------------------------------------------------------------- the variational autoencoder


def test_the_vae_has_the_published_count_and_keys():
    model = VAE(rng=0)
    assert count(model) == 652_824
    assert list(model.state_dict()) == [
        f"{name}.{kind}" for name in ("fc1", "fc21", "fc22", "fc3", "fc4") for kind in ("weight", "bias")
    ]


@pytest.mark.parity
def test_the_vae_beside_torch(torch):
    model = VAE(12, 7, 3, rng=0).astype(np.float64)
    loss = ELBOLoss()
    x = rng.random((4, 1, 3, 4))
    state = model.draw.rng.bit_generator.state
    eps = torch.from_numpy(model.draw.rng.standard_normal((4, 3), np.float32).astype(np.float64))
    model.draw.rng.bit_generator.state = state
    value = loss(*model(x), x)
    dx = model.backward(loss.backward())

    w = {name: torch.from_numpy(p.data).requires_grad_() for name, p in model.named_parameters()}

    def linear(name, z):
        return z @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    tx = torch.from_numpy(x).requires_grad_()
    h = torch.relu(linear("fc1", tx.flatten(1)))
    mu, logvar = linear("fc21", h), linear("fc22", h)
    z = mu + eps * torch.exp(0.5 * logvar)
    p = torch.sigmoid(linear("fc4", torch.relu(linear("fc3", z))))
    bce = torch.nn.functional.binary_cross_entropy(p, torch.from_numpy(x).flatten(1), reduction="sum")
    kl = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    (bce / 4 + kl / 4).backward()
    assert value == pytest.approx(float((bce + kl).detach()) / 4, rel=1e-12)
    assert loss.parts == pytest.approx((float(bce.detach()) / 4, float(kl.detach()) / 4))
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-9, atol=1e-12)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad, w[name].grad.numpy(), rtol=1e-9, atol=1e-12)


def test_the_cloud_is_where_mu_and_logvar_say_and_a_seed_is_one_point():
    mu, logvar = np.array([[1.0, -2.0]]), np.log(np.array([[0.25, 4.0]]))
    drawn = Reparameterize(rng=0)(np.repeat(mu, 20000, 0), np.repeat(logvar, 20000, 0))
    np.testing.assert_allclose(drawn.mean(0), mu[0], atol=0.05)
    np.testing.assert_allclose(drawn.var(0), [0.25, 4.0], rtol=0.05)
    x = rng.random((2, 6)).astype(np.float32)
    a, b = (VAE(6, 4, 2, rng=3)(x)[0] for _ in range(2))
    assert (a == b).all()
    wide = Reparameterize(rng=5)(np.zeros(4), np.zeros(4))
    assert (Reparameterize(rng=5)(np.zeros(4, np.float32), np.zeros(4, np.float32)) == wide).all()


def test_the_loss_of_the_prior_is_that_of_the_picture():
    x, target = rng.standard_normal((3, 5)), rng.random((3, 5))
    nothing = np.zeros((3, 2))
    plain = BCEWithLogitsLoss(reduction="sum")(x, target) / 3
    assert ELBOLoss()(x, nothing, nothing, target) == pytest.approx(plain)
    assert ELBOLoss()(x, nothing + 1, nothing, target) == pytest.approx(plain + 1)  # 2 numbers, each 1/2 nat
    with pytest.raises(LayerError, match=r"mu \(N, code\)"):
        ELBOLoss()(x, nothing[:2], nothing[:2], target)


# ---------------------------------------------------------------------- diffusion


def test_the_schedule_has_the_published_values():
    alphabars = DDPM().alphabars
    for t, wanted in ((1, 0.9999), (100, 0.89702), (500, 0.078587), (1000, 4.0358e-5)):
        assert alphabars[t - 1] == pytest.approx(wanted, rel=2e-5)
    assert DDPM(200).alphabars[-1] < 1e-4  # not the 0.132 of betas that are left as they are
    assert DDPM(200).alphabars[99] == pytest.approx(alphabars[499], rel=0.03)


def test_noise_is_added_in_one_step_as_in_many():
    ddpm = DDPM(50)
    x = np.full((4000, 1), 0.7)
    generator = np.random.default_rng(1)
    slow = x
    for beta in ddpm.betas[:20]:
        slow = np.sqrt(1 - beta) * slow + np.sqrt(beta) * generator.standard_normal(x.shape)
    fast = ddpm.q_sample(x, np.full(4000, 19), generator.standard_normal(x.shape))
    assert fast.mean() == pytest.approx(slow.mean(), abs=0.05)
    assert fast.std() == pytest.approx(slow.std(), rel=0.05)
    one = ddpm.q_sample(x[:1].astype(np.float32), np.array([49]), np.ones((1, 1), np.float32))
    assert one.dtype == np.float32
    a = ddpm.alphabars[49]
    assert one[0, 0] == pytest.approx(0.7 * np.sqrt(a) + np.sqrt(1 - a), rel=1e-6)
    with pytest.raises(ValueError, match="t from 0 to 49, got 50 to 50"):
        ddpm.q_sample(x[:1], np.array([50]), x[:1])
    with pytest.raises(ValueError, match="whole numbers t"):
        ddpm.q_sample(x[:1], np.array([0.5]), x[:1])


class Knows(Layer):
    """The noise in x_t, when every picture is the same one."""

    def __init__(self, ddpm, picture):
        self.ddpm, self.picture = ddpm, picture

    def forward(self, x, t):
        alphabar = self.ddpm.alphabars[t].reshape(-1, 1, 1, 1)
        return ((x - np.sqrt(alphabar) * self.picture) / np.sqrt(1 - alphabar)).astype(np.float32)


@pytest.mark.parametrize("few", [None, 10])
def test_who_knows_the_noise_draws_the_picture(few):
    ddpm = DDPM(100)
    picture = rng.uniform(-0.9, 0.9, (1, 2, 2))
    seen = []
    drawn = ddpm.sample(Knows(ddpm, picture), (3, 1, 2, 2), few=few, rng=0, watch=lambda t, x: seen.append(t))
    np.testing.assert_allclose(drawn, np.broadcast_to(picture, drawn.shape), atol=1e-3)
    assert drawn.dtype == np.float32
    assert seen[0] == 99 and seen[-1] == 0 and len(seen) == (few or 100)


def test_ancestral_steps_have_the_posterior_s_mean_and_variance():
    ddpm = DDPM(100)
    t, x, x0 = 3, 0.3, -0.5
    a, b, abar, before = ddpm.alphas[t], ddpm.betas[t], ddpm.alphabars[t], ddpm.alphabars[t - 1]
    mean = (np.sqrt(before) * b * x0 + np.sqrt(a) * (1 - before) * x) / (1 - abar)  # eq. 7
    variance = b * (1 - before) / (1 - abar)
    guess = (x - np.sqrt(abar) * x0) / np.sqrt(1 - abar)
    many = np.ones((40000, 1), np.float32)
    drawn = ddpm._step(x * many, guess.astype(np.float32) * many, t, np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(mean, abs=4 * np.sqrt(variance / 40000))
    assert drawn.var() == pytest.approx(variance, rel=0.05)


def test_a_network_that_starts_from_nothing_guesses_zero_and_keeps_its_mode():
    model = DiffusionUNet(1, 8, (1, 2), groups=4, rng=0)
    ddpm = DDPM(20)
    (x, t), noise = ddpm.noised(rng.standard_normal((4, 1, 8, 8)).astype(np.float32), rng=0)
    assert x.shape == noise.shape and t.shape == (4,) and x.dtype == np.float32
    assert not model(x, t).any()
    model.zero_grad()
    ddpm.sample(model, (2, 1, 8, 8), few=2, rng=0)
    assert all(layer.training and layer.caching for layer in model.modules())
    with pytest.raises(LayerError, match=r"H and W multiples of 2"):
        model(np.zeros((1, 1, 7, 8)), np.zeros(1))
    with pytest.raises(LayerError, match=r"t of shape \(1,\)"):
        model(np.zeros((1, 1, 8, 8)), np.zeros(2))
    assert repr(DiffusionUNet(1, 8, (1, 2), False, 4)) == (
        "DiffusionUNet(width=8, multipliers=(1, 2), attention=False, groups=4)"
    )


@pytest.mark.parametrize("attention", [True, False])
def test_a_few_entries_of_every_gradient_of_the_diffusion_unet(attention):
    model = DiffusionUNet(1, 4, (1, 2, 1), attention, 2, dropout=0.2, rng=0, dtype=np.float64)
    for p in model.parameters():
        p.data += 0.2 * rng.standard_normal(p.shape)
    x, t = rng.standard_normal((2, 1, 4, 8)), np.array([12, 700])
    report = check_gradients(model, x, t, most=3, tolerance=2e-6)
    assert report, str(report)
    model = DiffusionUNet(1, 4, (1, 2, 1), attention, 2, rng=0, dtype=np.float64)
    both = DiffusionUNet(1, 4, (1, 2, 1), attention, 2, rng=0, dtype=np.float64)
    for each in (x, x):
        both(each, t)
    dout = rng.standard_normal(model(x, t).shape)
    model.backward(dout)
    both.backward(dout)
    both.backward(dout)
    for p, q in zip(model.parameters(), both.parameters(), strict=True):
        np.testing.assert_allclose(q.grad, 2 * p.grad, rtol=1e-9, atol=1e-14)
    assert all(not vars(layer).get("_stack") for layer in both.modules())
    assert model.astype(np.float32)(x.astype(np.float32), t).dtype == np.float32


@pytest.mark.parity
def test_the_diffusion_unet_beside_torch(torch):
    """Its pieces in the order of the paper, written in torch's own functions."""
    f = torch.nn.functional
    model = DiffusionUNet(2, 4, (1, 2), groups=2, rng=0).astype(np.float64)
    for p in model.parameters():
        p.data += 0.1 * rng.standard_normal(p.shape)
    w = {name: torch.from_numpy(p.data).requires_grad_() for name, p in model.named_parameters()}

    def both(name):
        return w[f"{name}.weight"], w[f"{name}.bias"]

    def block(name, x, time):
        h = f.conv2d(f.silu(f.group_norm(x, 2, *both(f"{name}.first.norm"))), *both(f"{name}.first.conv"), padding=1)
        h = h + f.linear(f.silu(time), *both(f"{name}.time.project"))[:, :, None, None]
        h = f.conv2d(f.silu(f.group_norm(h, 2, *both(f"{name}.second.norm"))), *both(f"{name}.second.conv"), padding=1)
        return h + (f.conv2d(x, *both(f"{name}.shortcut")) if f"{name}.shortcut.weight" in w else x)

    x, t = rng.standard_normal((3, 2, 4, 6)), np.array([0, 17, 800])
    tx, tt = torch.from_numpy(x).requires_grad_(), torch.from_numpy(t).double()
    angles = tt[:, None] * torch.tensor([1.0, 0.01], dtype=torch.float64)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    time = f.linear(f.silu(f.linear(waves, *both("time.fc1"))), *both("time.fc2"))
    s0 = block("down.0", f.conv2d(tx, *both("conv_in"), padding=1), time)
    s1 = block("down.1", f.conv2d(s0, *both("halve.0"), stride=2, padding=1), time)
    h = block("middle", s1, time)
    n, c, height, width = h.shape
    rows = f.group_norm(h, 2, *both("look.norm")).reshape(n, c, -1).transpose(1, 2)
    q, k, v = f.linear(rows, *both("look.qkv")).chunk(3, dim=-1)
    seen = f.linear(f.scaled_dot_product_attention(q, k, v), *both("look.project"))
    h = h + seen.transpose(1, 2).reshape(n, c, height, width)
    h = block("up.1", torch.cat([h, s1], dim=1), time)
    h = f.conv2d(f.interpolate(h, scale_factor=2), *both("double.0.conv"), padding=1)
    h = block("up.0", torch.cat([h, s0], dim=1), time)
    ty = f.conv2d(f.silu(f.group_norm(h, 2, *both("out.norm"))), *both("out.conv"), padding=1)
    dout = rng.standard_normal(ty.shape)
    ty.backward(torch.from_numpy(dout))
    np.testing.assert_allclose(model(x, t), ty.detach().numpy(), rtol=1e-9, atol=1e-10)
    dx, none = model.backward(dout)
    assert none is None
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-9, atol=1e-10)
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.grad, w[name].grad.numpy(), rtol=1e-8, atol=1e-9, err_msg=name)


# ---------------------------------------------------------------------- the others


def test_the_start_and_the_shapes_of_the_gan():
    generator, discriminator = Generator(rng=0), Discriminator(rng=0)
    pictures = generator(rng.standard_normal((3, 64)).astype(np.float32))
    assert pictures.shape == (3, 1, 28, 28) and np.abs(pictures).max() <= 1
    assert discriminator(pictures).shape == (3, 1)
    weights = generator.state_dict()
    assert weights["up1.weight"].std() == pytest.approx(0.02, rel=0.05)
    assert weights["bn0.weight"].mean() == pytest.approx(1, abs=0.01)
    assert not weights["bn0.bias"].any()
    with pytest.raises(ValueError, match="sides are multiples of 4, got 30x28"):
        Generator(image_shape=(1, 30, 28))


def test_the_autoencoders_mirror_themselves():
    assert list(Autoencoder(8, 5, 2, rng=0).state_dict())[::2] == [
        f"{half}.{i}.weight" for half in ("encoder", "decoder") for i in (0, 2)
    ]
    x = rng.random((2, 3, 12, 8)).astype(np.float32)
    model = ConvAutoencoder((3, 12, 8), 5, (4, 6), rng=0)
    assert model(x).shape == x.shape
    assert model["encoder"](x).shape == (2, 5)
    with pytest.raises(ValueError, match="halved 2 times"):
        ConvAutoencoder((1, 10, 8))
    with pytest.raises(ValueError, match="at least two sizes"):
        Autoencoder(4)


def learn(model, loss, draw, steps, lr=1e-2):
    optimizer = Adam(model.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        inputs, target = draw()
        optimizer.zero_grad()
        outputs = model(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        losses.append(float(loss(*outputs, *target)))
        model.backward(loss.backward())
        optimizer.step()
    return np.array(losses)


def test_each_of_them_learns():
    prototypes = (rng.random((4, 1, 8, 8)) > 0.5).astype(np.float32)
    generator = np.random.default_rng(0)

    def pictures(n=16):
        return prototypes[generator.integers(0, 4, n)]

    def of_itself():
        x = pictures()
        return (x,), (x,)

    flat = pictures(16).reshape(16, 64)
    losses = learn(Autoencoder(64, 16, 4, rng=0), BCEWithLogitsLoss(), lambda: ((flat,), (flat,)), 150)
    assert losses[-1] < 0.1 < 0.6 < losses[0]
    assert learn(ConvAutoencoder((1, 8, 8), 4, (4, 8), rng=0), BCEWithLogitsLoss(), of_itself, 150)[-1] < 0.15
    losses = learn(VAE(64, 32, 2, rng=0), ELBOLoss(), of_itself, 300)
    assert losses[-20:].mean() < 8 < 40 < losses[0]  # log 4 = 1.4 nats would be the least

    ddpm = DDPM(50)

    def noised():
        batch = ddpm.noised(2 * pictures() - 1, generator)
        return batch.inputs, (batch.noise,)

    losses = learn(DiffusionUNet(1, 8, (1, 2), groups=4, rng=0), MSELoss(), noised, 120, 3e-3)
    assert losses[-20:].mean() < 0.35 < 0.9 < losses[:3].mean()

    def views():
        x = prototypes
        return tuple(x + 0.3 * generator.standard_normal(x.shape).astype(np.float32) for _ in range(2)), ()

    losses = learn(SimCLR(ConvNet(8, (1, 8, 8), (4, 8), rng=0), 8, 16, 8, rng=1), NTXentLoss(), views, 60)
    assert losses[-10:].mean() < losses[:3].mean() - 0.3
