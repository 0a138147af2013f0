"""The Trainer: it learns, twice the same; the data that it takes, the numbers that it reports."""

import numpy as np
import pytest

from backhand.layers import Add, Layer, Linear
from backhand.losses import Loss, MSELoss
from backhand.models import Parallel, Sequential
from backhand.training import (
    SGD,
    LinearLR,
    ReduceLROnPlateau,
    StepLR,
    Trainer,
    accuracy,
    binary_accuracy,
    top_k_accuracy,
)
from tests.toys import CrossEntropy, Loader, Watcher, blobs, net, trainer, without_seconds

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
