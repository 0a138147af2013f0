"""What an update makes of the weights is looked at: the step that broke them is named, good ones stay on disk."""

import math
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from backhand.layers import Linear, ReLU
from backhand.losses import CrossEntropyLoss, MSELoss
from backhand.models import Sequential
from backhand.training import SGD, Adam, AdversarialTrainer, History, RMSprop, StepLR, Trainer, TrainingError, replay
from backhand.training.command_line import main
from backhand.training.errors import unsound
from tests.optimizing import CLASSES, MATRICES
from tests.toys import blobs, net, trainer


class From(SGD):
    """Gradient descent whose update of one step sets one number."""

    at, value = 1, np.nan

    def __init__(self, params, lr=0.01):
        super().__init__(params, lr)
        self.made = 0

    def update(self, group, block):
        super().update(group, block)
        self.made += 1
        if self.made == self.at:
            block.data[3] = self.value


def breaking(at, value=np.nan, **options):
    model = net()
    optimizer = From(model.parameters())
    optimizer.at, optimizer.value = at, value
    return Trainer(model, CrossEntropyLoss(), optimizer, progress=False, **options)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("at", "epoch"), [(1, 1), (3, 1), (4, 1), (5, 2), (6, 2), (8, 2)])
def test_the_step_that_broke_the_weights_is_named(tmp_path, at, epoch, value):
    one = breaking(at, value, folder=tmp_path)
    kept = {}
    one.after_epoch = lambda record: kept.update(one.model.state_dict())
    with pytest.raises(TrainingError) as caught:
        one.fit(blobs(), epochs=2, batch_size=30)  # four steps each
    error, message = caught.value, str(caught.value)
    assert (error.step, error.epoch, error.lr, one.steps) == (at, epoch, 0.01, at)
    assert f"the update of step {at} (epoch {epoch}, learning rate 0.01) left weights that are not finite" in message
    assert "in '0.weight'" in message and "smaller learning rate (0.001)" in message
    assert "they still were" not in message
    path = tmp_path / "model.safetensors"
    if epoch == 1:
        assert "no weights of this run are on disk" in message and not path.exists()
    else:
        assert f"{path} holds those of the end of epoch 1" in message
        np.testing.assert_equal(load_file(path), kept)
    last = History.read(tmp_path / "history.jsonl").records[-1]
    assert last["error"] == message and last["step"] == at
    assert "parameters: '0.weight' holds" in str(replay(tmp_path / "failed_step.npz", net(), CrossEntropyLoss()))


def test_weights_that_are_too_many_to_look_at_after_every_step(monkeypatch):
    monkeypatch.setattr("backhand.training.trainer.SMALL", 10)
    for at, words in (
        (1, r"with them, the loss is nan at step 2 \(epoch 1, batch 2 of 4\), which was not made. The"),
        (3, r"in '0.weight' \(after step 0 they still were\); with them, the loss is nan at step 4 \(epoch 1, batch 4"),
        (4, r"in '0.weight' \(after step 0 they still were\). The"),
        (5, r"step 6 \(epoch 2, batch 2 of 4\), which was not made. The"),
    ):
        with pytest.raises(TrainingError, match=words) as caught:
            breaking(at).fit(blobs(), epochs=2, batch_size=30)
        assert caught.value.step == at and f"the update of step {at} (" in str(caught.value)


def test_the_last_step_of_a_run_without_validation():
    one = breaking(2)
    with pytest.raises(TrainingError, match="the update of step 2 "):
        one.fit(blobs(), epochs=1, batch_size=60)


@pytest.mark.parametrize("cls", [SGD, RMSprop, Adam])
@pytest.mark.parametrize("batch_size", [120, 40])
@pytest.mark.parametrize("validated", [True, False])
def test_a_rate_beyond_all_bounds(cls, batch_size, validated):
    model = net()
    one = Trainer(model, CrossEntropyLoss(), cls(model.parameters(), 3e37), progress=False)
    with pytest.raises(TrainingError, match=r"the update of step 1 \(epoch 1, learning rate 3e\+37\) left") as caught:
        one.fit(blobs(), blobs(seed=1) if validated else None, epochs=1, batch_size=batch_size)
    assert caught.value.step == 1


def test_a_deep_network_whose_weights_are_not_even_large():
    layers = [layer for i in range(40) for layer in (Linear(4, 4, rng=i), ReLU())]
    model = Sequential(*layers, Linear(4, 3, rng=99))
    one = Trainer(model, CrossEntropyLoss(), SGD(model.parameters(), 1.0), progress=False, after_step=lambda: grow())

    def grow():
        for p in model.parameters():
            p.data[...] = 40.0

    with pytest.raises(TrainingError, match="left weights, with which the loss of its batch is nan"):
        one.fit(blobs(), blobs(seed=1), epochs=1, batch_size=120)
    assert unsound(model) is None


def test_what_is_large_or_not_finite_for_another_reason_is_no_error():
    # weights whose squares leave float32, and nothing wrong with them
    model = Sequential(Linear(1, 1, bias=False, rng=0))
    model[0].weight.data[...] = 1e25
    one = Trainer(model, MSELoss(), SGD(model.parameters(), 0.0), progress=False)
    x = np.full((4, 1), 1e-25, np.float32)
    one.fit((x, x), epochs=2)
    assert one.epochs == 2
    # a nan in the validation data
    x, y = blobs()
    bad = x.copy()
    bad[3] = np.nan
    one = trainer(loss=CrossEntropyLoss())
    assert np.isnan(one.fit((x, y), (bad, y), epochs=2)["val_loss"]).all()
    # float16: a square leaves it at 256
    model = net(dtype=np.float16)
    for p in model.parameters():
        p.data[...] = 1
    model[0].weight.data[0, 0] = 300
    one = Trainer(model, CrossEntropyLoss(), SGD(model.parameters(), 1e-4), progress=False)
    one.fit((x.astype(np.float16), y), epochs=1)
    assert one.epochs == 1


def test_looking_again_leaves_buffers_generators_and_caches_as_they_are():
    from backhand.layers import BatchNorm1d, Dropout

    x, y = blobs()
    bad = x.copy()
    bad[3] = np.nan
    states = []
    for validation in (None, (bad, y)):
        model = Sequential(Linear(4, 8, rng=0), BatchNorm1d(8), Dropout(0.5, rng=3), Linear(8, 3, rng=1))
        trainer(model, CrossEntropyLoss()).fit((x, y), validation, epochs=2, batch_size=30)
        states.append(model.state_dict())
        assert all(not vars(layer).get("_stack") for layer in model.modules()) and model.training
    np.testing.assert_equal(*states)


def test_weights_that_are_not_finite_are_never_written_over_good_ones(tmp_path):
    one = trainer(folder=tmp_path)
    one.fit(blobs(), epochs=1)
    good = load_file(tmp_path / "model.safetensors")
    one.model[0].bias.data[0] = np.inf
    with pytest.raises(TrainingError, match=r"The weights were not finite before this step: '0.bias'") as caught:
        one.fit(blobs(), epochs=1)
    assert "model.safetensors" not in str(caught.value)
    np.testing.assert_equal(load_file(tmp_path / "model.safetensors"), good)


def test_a_schedule_that_gives_no_number_is_stopped_before_the_step():
    model = net()
    optimizer = SGD(model.parameters(), 0.01)
    schedule = StepLR(optimizer, 1, math.nan)
    one = Trainer(model, CrossEntropyLoss(), optimizer, schedule=schedule, schedule_every="batch", progress=False)
    with pytest.raises(ValueError, match="SGD: expected lr to be a number, 0 or more, got nan"):
        one.fit(blobs(), epochs=1)
    assert one.steps == 1 and all(np.isfinite(p.data).all() for p in model.parameters())


@pytest.mark.parametrize("cls", CLASSES)
def test_every_optimizer_is_looked_at(cls):
    sizes = MATRICES[0]
    model = Sequential(Linear(sizes[0], sizes[1], bias=False, rng=0))
    options = {"step_sizes": (1e-6, 1e300)} if cls.__name__ == "Rprop" else {}
    optimizer = cls(model.parameters(), lr=1e300, **options)
    x = np.ones((4, sizes[0]), np.float32)
    one = Trainer(model, MSELoss(), optimizer, progress=False)
    with pytest.raises(TrainingError, match=r"the update of step 1 .* left weights that are not finite"):
        one.fit((x, 5 * x[:, : sizes[1]]), epochs=1)


# ---------------------------------------------------------------------- two networks


def pair(lr, **options):
    generator = Sequential(Linear(2, 8, rng=0), ReLU(), Linear(8, 3, rng=1))
    critic = Sequential(Linear(3, 8, rng=2), ReLU(), Linear(8, 1, rng=3))
    rates = lr if isinstance(lr, tuple) else (lr, lr)
    optimizers = [SGD(each.parameters(), rate) for each, rate in zip((generator, critic), rates, strict=True)]
    return AdversarialTrainer(generator, critic, *optimizers, latent=2, progress=False, **options)


@pytest.mark.parametrize(
    ("rates", "whose"), [((1e39, 0.1), "generator"), ((0.1, 1e39), "discriminator"), ((3e37, 0.1), "generator")]
)
@pytest.mark.parametrize("batches", [1, 3])
def test_which_of_two_networks_was_broken_by_which_step(tmp_path, rates, whose, batches):
    real = np.random.default_rng(0).standard_normal((4 * batches, 3)).astype(np.float32)
    one = pair((0.1, 0.1), folder=tmp_path)
    with np.errstate(all="ignore"):
        one.fit(real, epochs=1, batch_size=4)
        good = load_file(tmp_path / "generator.safetensors"), load_file(tmp_path / "discriminator.safetensors")
        for optimizer, lr in zip((one.generator_optimizer, one.discriminator_optimizer), rates, strict=True):
            optimizer.param_groups[0]["lr"] = lr
        with pytest.raises(TrainingError) as caught:
            one.fit(real, epochs=2, batch_size=4)
    message = str(caught.value)
    lr = rates[0] if whose == "generator" else rates[1]
    assert f"the {whose}'s update of step {batches + 1} (epoch 2, learning rate {lr:.6g}) left weights" in message
    assert caught.value.step == batches + 1 and caught.value.lr == lr
    assert f"{tmp_path} holds those of the end of epoch 1" in message
    assert History.read(tmp_path / "history.jsonl").records[-1]["error"] == message
    for before, name in zip(good, ("generator", "discriminator"), strict=True):
        np.testing.assert_equal(load_file(tmp_path / f"{name}.safetensors"), before)


def test_a_gradient_that_is_not_finite_moves_neither_network():
    one = pair(0.1)
    one.discriminator[2].weight.data[...] = 1e-20
    backward = one.discriminator[0].backward
    one.discriminator[0].backward = lambda dout: backward(dout * np.inf)
    before = one.discriminator.state_dict(), one.generator.state_dict()
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match=r"the discriminator's gradient is (nan|inf) at"):
        one.fit(np.ones((4, 3), np.float32), epochs=1)
    np.testing.assert_equal((one.discriminator.state_dict(), one.generator.state_dict()), before)


# ---------------------------------------------------------------------- the command line


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example(here, capsys):
    command = "train --model mlp --optimizer sgd --lr 3e37 --epochs 1 --batch-size 2000 --out run"
    assert main(command.split()) == 1
    error = capsys.readouterr().err
    assert re.match(r"backhand train: the update of step 1 \(epoch 1, learning rate 3e\+37\) left weights", error)
    assert error.count("\n") == 1 and "run/model.safetensors holds them, as no epoch had ended" in error
    assert all(np.isfinite(array).all() for array in load_file(here / "run/model.safetensors").values())


def test_large_weights_are_not_written_over_those_of_the_last_good_epoch(tmp_path):
    model = net()
    optimizer = SGD(model.parameters(), 0.01)
    one = Trainer(model, CrossEntropyLoss(), optimizer, folder=tmp_path, progress=False)
    one.fit(blobs(), epochs=1, batch_size=30)
    good = load_file(tmp_path / "model.safetensors")
    optimizer.param_groups[0]["lr"] = 3e37
    with pytest.raises(TrainingError, match=r"the update of step 5 .* holds those of the end of epoch 1"):
        one.fit(blobs(), epochs=1, batch_size=30)
    np.testing.assert_equal(load_file(tmp_path / "model.safetensors"), good)


@pytest.mark.parametrize("model", [["char-gru", "--data", "rhyme.txt", "--batch-size", "4"], ["ntm", "--epochs", "1"]])
def test_the_loops_of_the_recipes(here, capsys, model):
    (here / "rhyme.txt").write_text("the cat sat on the mat and that was that\n" * 60)
    assert main(["train", "--model", *model, "--lr", "1e39", "--out", "run", "--quiet"]) == 1
    assert "the update of step 1 (" in capsys.readouterr().err
    assert not (here / "run/model.safetensors").exists()


def test_an_interrupt_does_not_save_broken_weights(here, capsys, monkeypatch):
    step = Adam.step

    def break_off(self):
        step(self)
        self.param_groups[0]["params"][0].data.reshape(-1)[0] = np.nan
        raise KeyboardInterrupt

    monkeypatch.setattr(Adam, "step", break_off)
    assert main(["train", "--model", "mlp", "--out", "run"]) == 130
    assert "not all weights are finite at the interrupt" in capsys.readouterr().err
    assert not (here / "run/model.safetensors").exists()
