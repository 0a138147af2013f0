"""Two networks in turn: who changes when, what is counted, what is left on disk, and that drawings become like."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from backhand.layers import Linear, ReLU, Sigmoid
from backhand.models import Discriminator, Generator, Sequential
from backhand.training import SGD, Adam, AdversarialTrainer, History, TrainingError

rng = np.random.default_rng(0)


def pair(lr=1e-2, **options):
    generator = Sequential(Linear(2, 8, rng=0), ReLU(), Linear(8, 3, rng=1))
    critic = Sequential(Linear(3, 8, rng=2), ReLU(), Linear(8, 1, rng=3))
    optimizers = [Adam(each.parameters(), lr) for each in (generator, critic)]
    return AdversarialTrainer(generator, critic, *optimizers, latent=2, progress=False, **options)


def test_one_step_is_the_algorithm_written_out():
    real = rng.standard_normal((5, 3)).astype(np.float32)
    trainer = pair()
    z = np.random.default_rng(0).standard_normal((5, 2), np.float32)
    trainer.rng = np.random.default_rng(0)
    other = pair()
    got = trainer.step(real)

    def surprise(scores, label):  # the binary cross-entropy and its gradient
        p = 1 / (1 + np.exp(-scores))
        return -np.log(p if label else 1 - p).mean(), (p - label) / len(p)

    drawn = other.generator(z)
    total = 0.0
    for pictures, label in ((real, 1), (drawn, 0)):
        loss, gradient = surprise(other.discriminator(pictures), label)
        other.discriminator.backward(gradient)
        total += loss
    other.discriminator_optimizer.step()
    loss, gradient = surprise(other.discriminator(drawn), 1)
    other.generator.backward(other.discriminator.backward(gradient))
    other.generator_optimizer.step()
    assert got["discriminator_loss"] == pytest.approx(total, rel=1e-5)
    assert got["generator_loss"] == pytest.approx(loss, rel=1e-5)
    for name in ("generator", "discriminator"):
        for a, b in zip(getattr(trainer, name).parameters(), getattr(other, name).parameters(), strict=True):
            np.testing.assert_allclose(a.data, b.data, rtol=1e-4, atol=1e-6)


@pytest.mark.parity
def test_three_steps_beside_torch(torch):
    nn = torch.nn
    trainer = pair()
    networks = [nn.Sequential(nn.Linear(a, 8), nn.ReLU(), nn.Linear(8, b)).double() for a, b in ((2, 3), (3, 1))]
    ours = (trainer.generator.astype(np.float64), trainer.discriminator.astype(np.float64))
    trainer.generator_optimizer, trainer.discriminator_optimizer = (Adam(each.parameters(), 1e-2) for each in ours)
    for theirs, own in zip(networks, ours, strict=True):
        theirs.load_state_dict({key: torch.from_numpy(value) for key, value in own.state_dict().items()})
    generator, critic = networks
    optimizers = [torch.optim.Adam(each.parameters(), 1e-2) for each in networks]
    bce = nn.BCEWithLogitsLoss()
    trainer.rng, noise = np.random.default_rng(4), np.random.default_rng(4)
    for _ in range(3):
        real = rng.standard_normal((5, 3))
        trainer.step(real)
        z = torch.from_numpy(noise.standard_normal((5, 2), np.float32)).double()
        fake, ones = generator(z), torch.ones(5, 1).double()
        optimizers[1].zero_grad()
        (bce(critic(torch.from_numpy(real)), ones) + bce(critic(fake.detach()), 0 * ones)).backward()
        optimizers[1].step()
        optimizers[0].zero_grad()
        bce(critic(fake), ones).backward()
        optimizers[0].step()
    for theirs, own in zip(networks, ours, strict=True):
        for name, value in theirs.state_dict().items():
            np.testing.assert_allclose(own.state_dict()[name], value.numpy(), rtol=1e-9, atol=1e-12)


def test_what_is_drawn_comes_near_to_what_is_real(tmp_path):
    real = (np.array([2.0, -1.0, 0.5]) + 0.1 * rng.standard_normal((256, 3))).astype(np.float32)
    seen = []
    trainer = pair(folder=tmp_path, log_every=3, after_epoch=seen.append)
    before = np.abs(trainer.draw(200).mean(axis=0) - real.mean(axis=0)).max()
    history = trainer.fit(real, epochs=30, batch_size=32)
    assert np.abs(trainer.draw(200).mean(axis=0) - real.mean(axis=0)).max() < min(0.7, before / 2)
    assert len(seen) == 30 and seen[-1]["epoch"] == 30.0 and trainer.steps == 240
    assert set(seen[0]) >= {"generator_loss", "discriminator_loss", "real_score", "fake_score"}
    assert History.read(tmp_path / "history.jsonl").records == history.records
    assert any("batch_generator_loss" in record for record in history)
    for name in ("generator", "discriminator"):
        saved = load_file(tmp_path / f"{name}.safetensors")
        np.testing.assert_equal(saved, getattr(trainer, name).state_dict())
    assert all(layer.input_requires_grad for network in (trainer.generator, trainer.discriminator) for layer in network)


def test_a_seed_is_one_run_and_modes_are_given_back():
    x = rng.uniform(-1, 1, (12, 1, 4, 4)).astype(np.float32)
    drawn = []
    for seed in (0, 0, 1):
        networks = Generator(3, (1, 4, 4), 2, rng=0), Discriminator((1, 4, 4), 2, rng=1)
        networks[0].eval()
        optimizers = [Adam(each.parameters(), 1e-3) for each in networks]
        trainer = AdversarialTrainer(*networks, *optimizers, latent=3, seed=seed, progress=False)
        trainer.fit(x, epochs=2, batch_size=4)
        assert not any(layer.training for layer in networks[0].modules())
        assert all(not vars(layer).get("_stack") for each in networks for layer in each.modules())
        drawn.append(trainer.draw(2))
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()


def test_what_is_refused():
    generator, critic = Linear(2, 3, rng=0), Linear(3, 1, rng=0)
    a, b = SGD(generator.parameters(), 0.1), SGD(critic.parameters(), 0.1)
    with pytest.raises(ValueError, match="generator_optimizer to hold parameters of the generator alone"):
        AdversarialTrainer(generator, critic, b, a)
    with pytest.raises(ValueError, match="expected discriminator as a Layer"):
        AdversarialTrainer(generator, Sigmoid, a, b)
    trainer = AdversarialTrainer(generator, critic, a, b, latent=2, progress=False)
    critic.weight.data[...] = np.nan
    with pytest.raises(TrainingError, match="the discriminator's loss is nan at step 1"):
        trainer.fit(np.zeros((4, 3), np.float32), epochs=1)
