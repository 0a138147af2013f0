"""The Trainer when something is wrong: modes, early stops, numbers that are not finite, interruptions, refusals."""

import json

import numpy as np
import pytest

from backhand.layers import LayerError, Linear, Parameter
from backhand.losses import MSELoss
from backhand.models import Sequential
from backhand.training import (
    SGD,
    History,
    StepLR,
    Trainer,
    TrainingError,
    load_weights,
    read_weights,
)
from tests.toys import BadGradient, CrossEntropy, Loader, Watcher, blobs, kept, net, trainer

# ---------------------------------------------------------------------- modes and caches


def test_modes_are_given_back_also_after_errors():
    watcher = Watcher()
    model = net(watcher)
    quiet = model[3].eval(caching=True)
    one = trainer(model)
    one.fit(blobs(), blobs(seed=1), epochs=1, batch_size=60)
    assert watcher.modes == [False, False, True, True, False, False]  # tried on both; two batches of each
    assert model.training and model.caching and not quiet.training and quiet.caching
    assert kept(model) == kept(one.loss) == []
    x, y = blobs()
    for call in (
        lambda: one.evaluate((x[:, :2], y)),
        lambda: one.predict(x[:, :2]),
        lambda: one.fit(Loader(x[:, :2], y), epochs=1),
        lambda: one.fit((x, y), Loader(x[:, :2], y), epochs=1),
    ):
        with pytest.raises(LayerError):
            call()
        assert model.training and model.caching and not quiet.training and quiet.caching
        assert kept(model) == kept(one.loss) == []
    model.eval()
    one.fit((x, y), epochs=1)
    assert watcher.modes[-1] and not model.training and not model.caching


# ---------------------------------------------------------------------- the best, and stopping early


class Scripted:
    """A metric that gives the numbers of a script, one for each call in validation."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, scores, target):
        return self.values.pop(0) if self.values else 0.0


def test_best_and_last_weights(tmp_path):
    x, y = blobs()
    model = net()
    #                    tried twice, then for each epoch: training, validation
    script = Scripted(0, 0, 0, 0.5, 0, 0.7, 0, 0.6, 0, 0.7, 0, 0.9)
    one = trainer(model, metrics={"score": script}, monitor="val_score", patience=2, folder=tmp_path, restore_best=True)
    snapshots = []
    step = one.history.append
    one.history.append = lambda record: (step(record), snapshots.append(model.state_dict()))
    one.fit((x, y), (x, y), epochs=9, batch_size=200)
    assert one.history["val_score"].tolist() == [0.5, 0.7, 0.6, 0.7]  # level is not better
    assert one.best == 0.7 and one.best_epoch == 2
    np.testing.assert_equal(read_weights(tmp_path / "best.safetensors"), snapshots[1])
    np.testing.assert_equal(read_weights(tmp_path / "model.safetensors"), snapshots[3])
    np.testing.assert_equal(model.state_dict(), snapshots[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.safetensors", "history.jsonl", "model.safetensors"]
    assert History.read(tmp_path / "history.jsonl").records == one.history.records


def test_a_loss_should_fall_and_nan_is_never_better():
    x, y = blobs()
    one = trainer(
        metrics={"error": Scripted(0, 0, 0, np.nan, 0, 0.5, 0, 0.4, 0, np.nan, 0, 0.4)}, monitor="val_error", patience=2
    )
    one.fit((x, y), (x, y), epochs=9, batch_size=200)
    assert one.best == 0.4 and one.best_epoch == 3 and one.epochs == 5


def test_without_validation_the_training_loss_decides(tmp_path):
    one = trainer(folder=tmp_path)
    one.fit(blobs(), epochs=3)
    assert one.best == min(one.history["loss"]) and (tmp_path / "best.safetensors").exists()
    with pytest.raises(ValueError, match=r"got 'val_loss' \(there is no validation data\)"):
        trainer(patience=3).fit(blobs(), epochs=1)
    with pytest.raises(ValueError, match="got 'val_score'"):
        trainer(monitor="val_score").fit(blobs(), blobs(), epochs=1)
    trainer(monitor="accuracy", patience=1).fit(blobs(), epochs=1)


# ---------------------------------------------------------------------- numbers that are not finite


def assert_stopped_before(error, one, watcher, folder, step):
    """The run stopped at `step`; memory and disk hold what was there after the step before."""
    assert error.step == step and one.steps == step - 1
    reference_watcher = Watcher()
    reference = net(reference_watcher, dtype=np.float64)
    x, y = blobs(60, dtype=np.float64)
    other = Trainer(reference, CrossEntropy(), SGD(reference.parameters(), 0.1), progress=False)
    batches = [(x[a : a + 10], y[a : a + 10]) for a in range(0, 60, 10)] * 3
    other.fit(batches[: step - 1], epochs=1)
    np.testing.assert_equal(one.model.state_dict(), reference.state_dict())
    np.testing.assert_equal(read_weights(folder / "model.safetensors"), reference.state_dict())
    assert all((p.grad == 0).all() for p in one.model.parameters())
    assert kept(one.model) == kept(one.loss) == [] and one.model.training
    last = json.loads((folder / "history.jsonl").read_text().splitlines()[-1])
    assert last["step"] == step - 1 and f"step {step} " in last["error"] and last["lr"] == 0.1


def test_a_loss_that_is_not_finite(tmp_path):
    x, y = blobs(60, dtype=np.float64)
    x[35] = np.nan
    watcher = Watcher()
    model = net(watcher, dtype=np.float64)
    one = Trainer(model, CrossEntropy(), SGD(model.parameters(), 0.1), folder=tmp_path, progress=False)
    with pytest.raises(TrainingError) as caught:
        one.fit((x, y), epochs=2, batch_size=10, shuffle=False)
    assert isinstance(caught.value, FloatingPointError)
    message = str(caught.value)
    assert "the loss is nan" in message and "at step 4 (epoch 1, batch 4 of 6; loss nan, learning rate 0.1)" in message
    assert "the input of this batch holds numbers that are not finite" in message
    assert str(tmp_path / "model.safetensors") in message
    assert (caught.value.epoch, caught.value.lr) == (1, 0.1) and np.isnan(caught.value.loss)
    assert one.history.records[-1]["epoch"] == 0.5
    assert_stopped_before(caught.value, one, watcher, tmp_path, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite(tmp_path, value):
    x, y = blobs(60, dtype=np.float64)
    watcher = Watcher()
    model = net(watcher, dtype=np.float64)
    model.layers["9"] = BadGradient(at=8, value=value)
    one = Trainer(
        model,
        CrossEntropy(),
        SGD(model.parameters(), 0.1),
        folder=tmp_path,
        progress=False,
        clip_norm=1e9,
        clip_value=1e9,
    )
    with pytest.raises(TrainingError) as caught:
        one.fit((x, y), epochs=3, batch_size=10, shuffle=False)
    message = str(caught.value)
    assert "a gradient is not finite, in '1.weight' first at step 8 (epoch 2, batch 2 of 6; loss 0." in message
    assert "smaller learning rate (0.01)" in message and "clip_norm" in message
    assert_stopped_before(caught.value, one, watcher, tmp_path, 8)


def test_a_run_that_diverges_in_float32():
    x, _ = blobs()
    model = Sequential(Linear(4, 4, rng=0), Linear(4, 4, rng=1), Linear(4, 1, rng=2))
    one = Trainer(model, MSELoss(), SGD(model.parameters(), lr=50.0), progress=False)
    with pytest.raises(TrainingError, match=r"learning rate 50\)"):
        one.fit((x, x[:, :1]), epochs=20, batch_size=16)
    assert all(np.isfinite(array).all() for array in model.state_dict().values())


def test_large_finite_gradients_are_not_mistaken():
    model = Sequential(Linear(1, 1, bias=False, rng=0))
    big = np.array([[1e10]], np.float32)
    one = Trainer(model, MSELoss(), SGD(model.parameters(), lr=0.0), progress=False)
    one.fit((np.array([[1e12]], np.float32), big), epochs=1)  # the square of the gradient is beyond float32
    assert one.steps == 1


def test_weights_that_were_not_finite_before():
    model = net()
    model[0].bias.data[0] = np.inf
    with pytest.raises(TrainingError, match=r"weights were not finite before this step: '0.bias'"):
        trainer(model).fit(blobs(), epochs=1)


# ---------------------------------------------------------------------- interruptions


def test_keyboard_interrupt(tmp_path):
    def interrupt(n):
        if n == 10:
            raise KeyboardInterrupt

    watcher = Watcher(interrupt)
    model = net(watcher)
    one = trainer(model, folder=tmp_path, log_every=1)
    with pytest.raises(KeyboardInterrupt):
        one.fit(blobs(), blobs(seed=1), epochs=5, batch_size=30)
    history = History.read(tmp_path / "history.jsonl")
    assert history.records == one.history.records and len(history["val_loss"]) == 2
    other = net(Watcher())
    load_weights(other, tmp_path / "model.safetensors")
    assert other[0].count == 8 and int(watcher.count) == 9
    assert model.training and kept(model) == []
    watcher.on_step = None
    one.fit(blobs(), epochs=1, batch_size=30)
    assert one.epochs == 3


def test_labels_found_wrong_only_by_the_loss_leave_everything_as_it_was():
    x, y = blobs()
    batches = [(x[:60], y[:60]), (x[60:], y[60:] + 2)]
    watcher = Watcher()
    one = trainer(net(watcher))
    with pytest.raises(LayerError, match=r"labels in \[0, 3\)"):
        one.fit(batches, epochs=1)
    assert int(watcher.count) == 1 and one.steps == 1 and kept(one.model) == []


# ---------------------------------------------------------------------- what is refused, before anything is changed


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": (np.ones((5, 4)), np.zeros(4, int))}, "arrays of one length, got 5 and 4 samples"),
        ({"train": (np.ones((0, 4)), np.zeros(0, int))}, "at least one sample"),
        ({"train": (np.ones((5, 4)), np.array([0, 1, 2, 3, 0]))}, r"labels in \[0, 3\), got 3"),
        ({"train": (np.ones((5, 4)), np.array([0, 1, 2, -1, 0]))}, r"labels in \[0, 3\)"),
        ({"train": (np.ones((5, 3)), np.zeros(5, int))}, r"expected x of shape \(..., 4\), got \(1, 3\)"),
        ({"train": (np.array(["a"]), np.zeros(1, int))}, "array of numbers"),
        ({"train": ((np.ones((5, 4)), np.ones((4, 4))), np.zeros(5, int))}, "arrays of one length"),
        ({"train": np.ones((5, 4))}, "pair of arrays"),
        ({"train": 5}, "pair of arrays"),
        ({"train": [1, 2, 3]}, "an iterable of int 1"),
        ({"train": []}, "at least one batch"),
        ({"validation": (np.ones((5, 4)), np.zeros(4, int))}, "validation: expected arrays of one length"),
        ({"validation": (np.ones((5, 4)), np.full(5, 7))}, "labels in"),
        ({"epochs": 0}, "epochs to be a positive integer, got 0"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"batch_size": 0}, "batch_size to be a positive integer, got 0"),
        ({"batch_size": -3}, "batch_size"),
    ],
    ids=str,
)
def test_bad_data_and_bad_numbers(options, words, tmp_path):
    watcher = Watcher()
    one = trainer(net(watcher), folder=tmp_path / "run")
    before = one.model.state_dict()
    with pytest.raises(ValueError, match=words):
        one.fit(**{"train": blobs(), "epochs": 1, **options})
    np.testing.assert_equal(one.model.state_dict(), before)
    assert one.epochs == one.steps == len(one.history) == 0 and kept(one.model) == []
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("n", [120, 1_000_001])
@pytest.mark.parametrize("label", [3, -1])
def test_one_bad_label_at_the_end_is_found_before_the_first_step(label, n):
    x, y = blobs(n)
    y[-1] = label
    for options in ({"train": (x, y)}, {"train": blobs(), "validation": (x, y)}):
        one = trainer()
        before = one.model.state_dict()
        with pytest.raises(LayerError, match="labels in"):
            one.fit(**options, epochs=1, batch_size=8, shuffle=False)
        np.testing.assert_equal(one.model.state_dict(), before)


def test_bad_arguments():
    model = net()
    optimizer = SGD(model.parameters())
    good = (model, CrossEntropy(), optimizer)
    for arguments, options, words in (
        ((Linear, *good[1:]), {}, r"model to be a Layer, got .*; did you mean Linear\(\)\?"),
        ((model, CrossEntropy, optimizer), {}, "loss to be a Layer"),
        ((model, CrossEntropy(reduction="none"), optimizer), {}, "reduction='none'"),
        ((model, CrossEntropy(), model.parameters()), {}, "optimizer to be a Optimizer|optimizer to be an? Optimizer"),
        ((net(), CrossEntropy(), optimizer), {}, "none of them"),
        (good, {"schedule": StepLR(SGD([Parameter(np.ones(1))]), 1)}, "same optimizer"),
        (good, {"schedule": 3}, "same optimizer"),
        (good, {"schedule_every": "step"}, "schedule_every"),
        (good, {"clip_norm": 0}, "clip_norm"),
        (good, {"clip_value": -1}, "clip_value"),
        (good, {"patience": 0}, "patience"),
        (good, {"log_every": -1}, "log_every"),
        (good, {"metrics": {"accuracy": 3}}, "metrics"),
    ):
        with pytest.raises(ValueError, match=words):
            Trainer(*arguments, **options)


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        one = trainer(folder=folder)
        before = one.model.state_dict()
        with pytest.raises(OSError, match=r"cannot write to the folder '.*file"):
            one.fit(blobs(), epochs=1)
        np.testing.assert_equal(one.model.state_dict(), before)
