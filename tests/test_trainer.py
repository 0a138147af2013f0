"""The Trainer: what it computes, what it leaves behind, and how it stops."""

import functools
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tqdm

from backhand.layers import Add, Layer, LayerError, Linear, Parameter, ReLU
from backhand.layers.softmax import log_softmax
from backhand.losses import Loss, MSELoss
from backhand.models import Parallel, Sequential
from backhand.training import (
    SGD,
    Adam,
    History,
    LinearLR,
    ReduceLROnPlateau,
    StepLR,
    Trainer,
    TrainingError,
    accuracy,
    binary_accuracy,
    load_weights,
    read_weights,
    top_k_accuracy,
)


class CrossEntropy(Loss):
    """Enough of a cross-entropy for these tests."""

    def forward(self, x, target):
        x = self.input(x)
        if target.min() < 0 or target.max() >= x.shape[1]:
            self.reject(f"labels in [0, {x.shape[1]})", target.max())
        logs = log_softmax(x, 1)
        losses = -logs[np.arange(len(x)), target]
        self.save(logs, target, out=losses)
        return self.reduce(losses)

    def backward(self, dout=None):
        dl = self.upstream(dout)
        logs, target = self.saved()
        dx = np.exp(logs)
        dx[np.arange(len(dx)), target] -= 1
        return dx * dl[:, None]


class Watcher(Layer):
    """Hands everything on, keeps running statistics as BatchNorm does, and remembers what it saw."""

    buffer_names = ("mean", "count")

    def __init__(self, on_step=None):
        self.mean = np.zeros(1)
        self.count = np.array(0)
        self.seen = []
        self.modes = []
        self.on_step = on_step

    def forward(self, x):
        self.modes.append(self.training)
        if self.training:
            self.seen.append(np.array(x))
            self.mean[...] = 0.9 * self.mean + 0.1 * x.mean()
            self.count += 1
            if self.on_step:
                self.on_step(len(self.seen))
        self.save(out=x)
        return x + 0

    def backward(self, dout):
        dout = self.upstream(dout)
        self.saved()
        return dout


class BadGradient(Layer):
    """The identity, with a derivative that breaks at a given call."""

    def __init__(self, at, value=np.nan):
        self.at, self.value, self.calls = at, value, 0

    def forward(self, x):
        self.save(out=x)
        return x + 0

    def backward(self, dout):
        dout = self.upstream(dout)
        self.saved()
        self.calls += 1
        return dout * self.value if self.calls == self.at else dout


def blobs(n=120, classes=3, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centres = 3 * np.random.default_rng(9).standard_normal((classes, 4))
    return (centres[y] + rng.standard_normal((n, 4))).astype(dtype), y


def net(*first, seed=0, dtype=np.float32):
    layers = [Linear(4, 8, rng=seed, dtype=dtype), ReLU(), Linear(8, 3, rng=seed + 1, dtype=dtype)]
    return Sequential(*first, *layers)


def trainer(model=None, loss=None, lr=0.01, **options):
    model = net() if model is None else model
    options.setdefault("progress", False)
    return Trainer(model, loss or CrossEntropy(), Adam(model.parameters(), lr), **options)


def kept(model):
    return [name for name, layer in model.named_modules() if vars(layer).get("_stack")]


def without_seconds(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


# ---------------------------------------------------------------------- it learns, twice the same


def test_it_learns():
    one = trainer(progress=False)
    history = one.fit(blobs(), blobs(seed=1), epochs=15, batch_size=16)
    assert history is one.history
    assert history["loss"][0] > 2 * history["loss"][-1]
    assert history["val_accuracy"][-1] > 0.9 and history["accuracy"][-1] > 0.9
    assert history.series("val_loss")[0].tolist() == list(range(1, 16))
    assert set(history.records[-1]) == {
        *("step", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "lr", "seconds"),
    }
    assert one.evaluate(blobs(seed=1)) == pytest.approx(
        {"loss": history["val_loss"][-1], "accuracy": history["val_accuracy"][-1]}
    )


def test_the_same_seed_gives_the_same_bits(tmp_path):
    def run(seed, folder):
        one = trainer(seed=seed, folder=tmp_path / folder, log_every=3, clip_norm=1.0)
        one.fit(blobs(), blobs(seed=1), epochs=3, batch_size=16)
        return without_seconds(one.history), (tmp_path / folder / "model.safetensors").read_bytes()

    assert run(4, "a") == run(4, "b")
    assert run(4, "a") != run(5, "c")


def test_fit_again_goes_on():
    straight, broken = trainer(log_every=4), trainer(log_every=4)
    straight.fit(blobs(), blobs(seed=1), epochs=4, batch_size=32)
    for _ in range(2):
        broken.fit(blobs(), blobs(seed=1), epochs=2, batch_size=32)
    assert without_seconds(straight.history) == without_seconds(broken.history)
    assert broken.epochs == 4 and broken.steps == 16


def test_one_step_by_hand():
    x, y = blobs(8, dtype=np.float64)
    model, reference = net(dtype=np.float64), net(dtype=np.float64)
    Trainer(model, CrossEntropy(), SGD(model.parameters(), 0.1), progress=False).fit((x, y), epochs=1)
    loss, optimizer = CrossEntropy(), SGD(reference.parameters(), 0.1)
    order = np.random.default_rng(0).permutation(8)
    loss.forward(reference.forward(x[order]), y[order])
    reference.backward(loss.backward())
    optimizer.step()
    np.testing.assert_equal(model.state_dict(), reference.state_dict())


# ---------------------------------------------------------------------- the data


@pytest.mark.parametrize(
    ("n", "size", "lengths"),
    [
        (12, 4, [4, 4, 4]),
        (14, 4, [4, 4, 4, 2]),
        (13, 4, [4, 4, 5]),
        (5, 4, [5]),
        (3, 1, [1, 1, 1]),
        (1, 4, [1]),
        (3, 9, [3]),
    ],
)
def test_every_sample_once_in_each_epoch_in_a_new_order(n, size, lengths):
    watcher = Watcher()
    x = np.arange(n, dtype=np.float32)[:, None]
    model = Sequential(watcher, Linear(1, 1, rng=0))
    trainer(model, MSELoss()).fit((x, x), epochs=3, batch_size=size)
    assert [len(batch) for batch in watcher.seen] == lengths * 3
    epochs = np.concatenate(watcher.seen).reshape(3, n)
    assert all(sorted(epoch) == list(range(n)) for epoch in epochs)
    if n > 10:
        assert not np.array_equal(epochs[0], epochs[1]) and not np.array_equal(epochs[0], np.arange(n))


def test_without_shuffling():
    watcher = Watcher()
    x = np.arange(10, dtype=np.float32)[:, None]
    trainer(Sequential(watcher, Linear(1, 1, rng=0)), MSELoss()).fit((x, x), epochs=2, batch_size=4, shuffle=False)
    assert np.concatenate(watcher.seen).ravel().tolist() == [*range(10), *range(10)]


def test_mapped_arrays_are_read_batch_by_batch(tmp_path):
    x, y = blobs()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r"), np.load(tmp_path / "y.npy", mmap_mode="r")
    assert isinstance(mapped[0], np.memmap)
    first, second = trainer(), trainer()
    first.fit((x, y), epochs=2, batch_size=16)
    second.fit(mapped, epochs=2, batch_size=16)
    np.testing.assert_equal(first.model.state_dict(), second.model.state_dict())


def test_arrays_are_never_read_as_a_whole():
    sizes = []

    class Spy(np.ndarray):
        def __getitem__(self, rows):
            found = super().__getitem__(rows)
            sizes.append(len(found))
            return found

    x, y = blobs()
    trainer().fit((x.view(Spy), y), (x.view(Spy), y), epochs=1, batch_size=16)
    assert sizes and max(sizes) <= 16


class Loader:
    """A re-iterable of batches that does not know its length."""

    def __init__(self, x, y, size=32):
        self.x, self.y, self.size = x, y, size

    def __iter__(self):
        for a in range(0, len(self.x), self.size):
            yield self.x[a : a + self.size], self.y[a : a + self.size]


@pytest.mark.parametrize("make", [Loader, lambda x, y: list(Loader(x, y)), lambda x, y: tuple(Loader(x, y, 60))])
def test_iterables_of_batches(make):
    x, y = blobs()
    one, other = trainer(), trainer()
    one.fit(make(x, y), make(x, y), epochs=3)
    size = 60 if len(next(iter(make(x, y)))[0]) == 60 else 32
    other.fit((x, y), (x, y), epochs=3, batch_size=size, shuffle=False)
    assert [r["loss"] for r in one.history] == [r["loss"] for r in other.history]
    np.testing.assert_equal(one.model.state_dict(), other.model.state_dict())


def test_a_generator_is_good_for_one_epoch():
    x, y = blobs()
    one = trainer()
    before = one.model.state_dict()
    with pytest.raises(ValueError, match="train: expected something that can be gone through 2 times"):
        one.fit(iter(Loader(x, y)), epochs=2)
    with pytest.raises(ValueError, match="validation: expected something that can be gone through 2 times"):
        one.fit((x, y), iter(Loader(x, y)), epochs=2)
    np.testing.assert_equal(one.model.state_dict(), before)
    used = iter(Loader(x, y))
    one.fit(used, epochs=1)
    assert one.steps == 4
    with pytest.raises(ValueError, match="at least one batch, got none"):
        one.fit(used, epochs=1)


def test_several_inputs():
    x, y = blobs()
    model = Sequential(Parallel(Linear(4, 3, rng=0), Linear(4, 3, rng=1)), Add())
    one = trainer(model)
    one.fit(((x, x[::-1]), y), ((x, x), y), epochs=2)
    assert one.predict((x, x), batch_size=7).shape == (120, 3)
    batches = [((x[:50], x[:50]), y[:50]), ((x[50:], x[50:]), y[50:])]
    one.fit(batches, batches, epochs=2)
    assert one.epochs == 4


def test_several_outputs_are_the_first_arguments_of_the_loss():
    class Both(Loss):
        def forward(self, a, b, target):
            self.save(a - target, b - target, out=a)
            return self.reduce((a - target) ** 2 + (b - target) ** 2)

        def backward(self, dout=None):
            dl = self.upstream(dout)
            a, b = self.saved()
            return 2 * dl * a, 2 * dl * b

    class Fork(Layer):
        def forward(self, x):
            self.save(out=(x, x))
            return x + 0, x + 0

        def backward(self, dout):
            a, b = self.upstream(dout)
            self.saved()
            return a + b

    model = Sequential(Linear(1, 1, rng=0), Fork())
    x = np.linspace(-1, 1, 20)[:, None]
    one = trainer(model, Both(), lr=0.1)
    one.fit((x, 3 * x), epochs=100)
    assert one.history["loss"][-1] < 0.01
    assert [part.shape for part in one.predict(x, 8)] == [(20, 1), (20, 1)]


def test_lists_are_arrays_too():
    one = trainer(Sequential(Linear(2, 2, rng=0)))
    one.fit(([[0.0, 1.0], [1.0, 0.0]], np.array([0, 1])), epochs=1)
    assert one.predict([[0.0, 1.0]]).shape == (1, 2)


# ---------------------------------------------------------------------- the numbers


def test_the_reported_loss_is_the_mean_over_the_samples():
    x, y = blobs(50, dtype=np.float64)
    for reduction in ("mean", "sum"):
        model = net(dtype=np.float64)
        loss = CrossEntropy(reduction=reduction)
        one = Trainer(model, loss, SGD(model.parameters(), lr=0.0), progress=False)
        whole = CrossEntropy().forward(model.eval().forward(x), y)
        model.train()
        one.fit((x, y), (x, y), epochs=1, batch_size=16)
        assert one.history["loss"] == pytest.approx(whole, rel=1e-12)
        assert one.history["val_loss"] == pytest.approx(whole, rel=1e-12)
        assert one.history["accuracy"] == pytest.approx(accuracy(model.eval().forward(x), y), rel=1e-12)


def test_metrics():
    scores = np.array([[1.0, 3, 2], [5, 1, 1], [0, 0, 9]])
    assert accuracy(scores, np.array([1, 0, 0])) == pytest.approx(2 / 3)
    assert accuracy(scores, np.eye(3)[[1, 1, 2]]) == pytest.approx(2 / 3)
    assert accuracy(scores, np.array([1, -100, 0])) == 0.5
    assert accuracy(scores, np.array([1, 255, 0]), ignore_index=255) == 0.5
    assert accuracy(scores[0], 1) == 1
    assert accuracy(scores.T[None], np.array([[1, 0, 2]])) == pytest.approx(1.0)
    assert top_k_accuracy(scores, np.array([2, 0, 0]), k=2) == 1
    assert top_k_accuracy(scores, np.array([2, 0, 0]), k=1) == pytest.approx(1 / 3)
    assert binary_accuracy(np.array([-1.0, 2.0]), np.array([0, 0])) == 0.5
    for metric in (accuracy, top_k_accuracy, binary_accuracy):
        with pytest.raises(ValueError, match="expected"):
            metric(scores, np.array([1, 2]))


def test_which_metrics_are_taken():
    x, y = blobs()
    one = trainer(metrics={"top2": lambda s, t: top_k_accuracy(s, t, 2)})
    one.fit((x, y), (x, y), epochs=1)
    assert "top2" in one.history and "val_top2" in one.history and "accuracy" not in one.history
    regression = trainer(Sequential(Linear(4, 1, rng=0)), MSELoss())
    regression.fit((x, x[:, :1]), epochs=1)
    assert "accuracy" not in regression.history
    nothing = trainer(metrics={})
    nothing.fit((x, y), epochs=1)
    assert "accuracy" not in nothing.history


def test_records_of_single_batches():
    one = trainer(log_every=2)
    one.fit(blobs(), epochs=2, batch_size=40)
    epochs, losses = one.history.series("batch_loss")
    assert epochs.tolist() == pytest.approx([2 / 3, 4 / 3, 2.0]) and np.isfinite(losses).all()
    assert [r["step"] for r in one.history] == [2, 3, 4, 6, 6]
    assert "batch_loss" not in trainer(log_every=0).fit(blobs(), epochs=2)


def test_schedules_per_epoch_and_per_batch():
    model = net()
    optimizer = SGD(model.parameters(), lr=1e-3)
    one = Trainer(model, CrossEntropy(), optimizer, schedule=StepLR(optimizer, 1, 0.5), progress=False)
    one.fit(blobs(), epochs=3)
    assert one.history["lr"].tolist() == [1e-3, 5e-4, 2.5e-4]
    model = net()
    optimizer = SGD(model.parameters(), lr=1e-3)
    schedule = LinearLR(optimizer, 0.2, total_iters=4)
    one = Trainer(
        model, CrossEntropy(), optimizer, schedule=schedule, schedule_every="batch", log_every=1, progress=False
    )
    one.fit(blobs(), epochs=2, batch_size=40)
    rates = [r["lr"] for r in one.history if "batch_loss" in r]
    assert rates == pytest.approx([2e-4, 4e-4, 6e-4, 8e-4, 1e-3, 1e-3])


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy", "loss"])
def test_a_plateau_goes_by_the_monitor(monitor):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    mode = "max" if monitor == "val_accuracy" else "min"
    schedule = ReduceLROnPlateau(optimizer, mode, 0.5, patience=1)
    one = Trainer(model, CrossEntropy(), optimizer, schedule=schedule, monitor=monitor, progress=False)
    history = one.fit(blobs(), blobs(seed=1), epochs=12)
    twin = SGD(net().parameters(), lr=0.1)
    again = ReduceLROnPlateau(twin, mode, 0.5, patience=1)
    expected = []
    for value in history[monitor]:
        expected.append(twin.param_groups[0]["lr"])
        again.step(value)
    assert history["lr"].tolist() == expected
    assert schedule.state_dict() == again.state_dict()
    if monitor == "val_accuracy":  # it is soon 1, and no more rises
        assert expected[-1] < 0.1


def test_a_plateau_that_cannot_work():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    schedule = ReduceLROnPlateau(optimizer)
    with pytest.raises(ValueError, match=r"every 'epoch', with mode='min' .* got 'batch', mode='min'"):
        Trainer(model, CrossEntropy(), optimizer, schedule=schedule, schedule_every="batch")
    with pytest.raises(ValueError, match="mode='max' for the monitor 'val_accuracy'"):
        Trainer(model, CrossEntropy(), optimizer, schedule=schedule, monitor="val_accuracy")


def test_clipping():
    x, y = blobs()
    moved = {}
    for name, limits in (("norm", {"clip_norm": 0.01}), ("value", {"clip_value": 0.001})):
        model = net()
        before = model.state_dict()
        Trainer(model, CrossEntropy(), SGD(model.parameters(), lr=1.0), progress=False, **limits).fit(
            (x, y), epochs=1, batch_size=120
        )
        moved[name] = np.concatenate([(before[k] - v).ravel() for k, v in model.state_dict().items()])
    assert np.linalg.norm(moved["norm"]) == pytest.approx(0.01, rel=1e-3)
    assert np.abs(moved["value"]).max() == pytest.approx(0.001, rel=1e-3)


def test_gradients_that_the_optimizer_does_not_hold_do_not_pile_up():
    found = []
    for epochs in (1, 3):
        model = net()
        one = Trainer(model, CrossEntropy(), SGD(model[2].parameters(), lr=0.0), progress=False)
        one.fit(blobs(), epochs=epochs, batch_size=200, shuffle=False)
        found.append(model[0].weight.grad.copy())
    assert np.array_equal(*found) and found[0].any()


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


# ---------------------------------------------------------------------- what is on the screen


def test_one_line_for_each_epoch_without_a_terminal(capsys):
    one = trainer(progress=True, patience=1, monitor="val_accuracy")
    one.fit(blobs(), blobs(), epochs=30)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == "" and lines[0].startswith("epoch 1/30  loss ") and lines[-1].startswith("stopped: val_accuracy")
    words = lines[0].split()
    assert words[2::2] == ["loss", "accuracy", "val_loss", "val_accuracy", lines[0].split()[-1]]
    assert words[-1].endswith("s")
    trainer(progress=False, patience=1).fit(blobs(), blobs(), epochs=2)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    trainer(progress=True).fit(blobs(), blobs(), epochs=2, batch_size=16)
    shown = sys.stderr.getvalue()
    assert "epoch 1/2:" in shown and "epoch 2/2:" in shown and "0/8" in shown
    # the bar goes when the epoch is over, and the line that everybody gets takes its place
    assert shown.rstrip(" ").endswith("\r")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["1/2", "2/2"]
    assert "val_accuracy" in lines[0]


def test_the_bar_shows_loss_and_accuracy(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("tqdm.tqdm", functools.partial(tqdm.tqdm, mininterval=0))
    trainer(progress=True).fit(blobs(), epochs=1, batch_size=16)
    shown = sys.stderr.getvalue()
    assert "loss=" in shown and "accuracy=" in shown


def test_a_list_of_metrics_is_named_after_the_functions():
    history = trainer(metrics=[accuracy, top_k_accuracy]).fit(blobs(), epochs=1)
    assert {"accuracy", "top_k_accuracy"} <= set(history.names())


def test_hooks_after_each_step_and_epoch():
    steps, epochs = [], []
    made = trainer(after_step=lambda: steps.append(1), after_epoch=epochs.append)
    history = made.fit(blobs(), epochs=2, batch_size=16)
    assert len(steps) == made.steps == 16
    assert epochs == [record for record in history if "loss" in record]


def test_the_place_of_bad_data_is_named():
    x, y = blobs()
    wrong = y.copy()
    wrong[77] = 9
    with pytest.raises(LayerError, match=r"sample 77 of train, on its own"):
        trainer().fit((x, wrong), epochs=1)
    with pytest.raises(LayerError, match=r"sample 77 of validation, on its own"):
        trainer().fit((x, y), (x, wrong), epochs=1)
    batches = [(x[i : i + 10], wrong[i : i + 10]) for i in range(0, 100, 10)]
    with pytest.raises(LayerError, match=r"\(in batch 8 of epoch 1\)"):
        trainer().fit(batches, epochs=1)
    with pytest.raises(LayerError, match=r"\(in batch 8 of data\)"):
        trainer().evaluate(batches)


def test_parts_of_a_data_set_are_not_a_pair():
    class Splits(tuple):
        train = validation = test = None

    with pytest.raises(ValueError, match=r"train: expected a pair of arrays \(x, y\), got several; give its \.train"):
        trainer().fit(Splits((1, 2, 3)), epochs=1)


def test_a_forward_from_before_is_forgotten():
    made = trainer()
    made.model(blobs()[0])
    made.fit(blobs(), epochs=1)
    assert all(not vars(layer).get("_stack") for layer in made.model.modules())


def test_the_rate_that_is_recorded_is_the_one_that_was_used():
    model = net()
    optimizer = SGD(model.parameters(), lr=1.0)
    made = Trainer(
        model,
        CrossEntropy(),
        optimizer,
        schedule=StepLR(optimizer, 1, 0.5),
        schedule_every="batch",
        progress=False,
        log_every=1,
    )
    rates = [record["lr"] for record in made.fit(blobs(), epochs=1, batch_size=60)]
    assert rates == [1.0, 0.5, 0.5]


def test_importing_costs_little():
    code = (
        "import backhand.training, sys; print([m for m in ('tqdm', 'matplotlib', 'safetensors') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
