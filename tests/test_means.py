"""A mean is over what counts: whatever the batches are, every average is that of one batch of everything."""

import copy
import json
import math
import pickle

import numpy as np
import pytest

import backhand.losses
from backhand.inspection import diagnose, initial_loss
from backhand.inspection.trial_runs import lr_range_test, overfit
from backhand.layers import BatchNorm1d, Dropout, Layer, Linear, Parameter
from backhand.losses import (
    CrossEntropyLoss,
    ELBOLoss,
    Loss,
    Mean,
    MSELoss,
    NLLLoss,
    SequenceBCELoss,
    SequenceCrossEntropyLoss,
)
from backhand.models import Sequential
from backhand.training import (
    SGD,
    Adam,
    History,
    ReduceLROnPlateau,
    StepLR,
    Trainer,
    accuracy,
    binary_accuracy,
    bits_per_sequence,
    intersection_over_union,
    top_k_accuracy,
    whole_sequences,
    wrong_bits,
)
from backhand.training.recipes.generative import _kl, _squared_error
from tests.cases import families
from tests.toys import net

N, C = 10, 3
SIZES = [1, 2, 3, 7, N]
rng = np.random.default_rng(0)
LABELS = np.array([0, 1, -100, -100, -100, 2, 1, -100, 0, 1])
WEIGHT = np.array([0.1, 5, 1])


class Handed(Layer):
    """The identity with a parameter, so that scores can be given as data."""

    def __init__(self):
        self.scale = Parameter(np.ones(()))

    def forward(self, *x):
        self.save(out=x if len(x) > 1 else x[0])
        return x if len(x) > 1 else x[0]

    def backward(self, dout):
        dout = self.upstream(dout)
        self.saved()
        return dout


def evaluated(loss, x, y, size, metrics=None, axis=0):
    model = Handed()
    one = Trainer(model, loss, SGD(model.parameters()), metrics=metrics, progress=False, batch_axis=axis)
    inputs = x if isinstance(x, tuple) else (x,)
    if axis == 0:
        return one.evaluate((x, y), batch_size=size)
    cut = [slice(a, a + size) for a in range(0, y.shape[axis], size)]
    return one.evaluate([(tuple(each[:, rows] for each in inputs), y[:, rows]) for rows in cut])


# ---------------------------------------------------------------------- losses


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


TOKENS = np.where(np.arange(N * 5).reshape(N, 5) % 7 < 2 + np.arange(N)[:, None] % 3, -100, np.arange(5) % 4)
TOKENS[3] = -100
CODES = (normal(N, 6), normal(N, 2, seed=1), normal(N, 2, seed=2))
LOSSES = {
    **{
        f"{cls.__name__} {reduction} {words}": (cls(weight, reduction=reduction), normal(N, C), LABELS)
        for cls in (CrossEntropyLoss, NLLLoss)
        for reduction in ("mean", "sum")
        for words, weight in (("", None), ("weight", WEIGHT), ("some 0", [0, 1, 2]))
    },
    "smoothing": (CrossEntropyLoss(WEIGHT, label_smoothing=0.2), normal(N, C), LABELS),
    "ignore 1": (CrossEntropyLoss(ignore_index=1), normal(N, C), np.arange(N) % C),
    "pixels": (CrossEntropyLoss(WEIGHT), normal(N, C, 4), rng.choice([0, 1, 2, -100], (N, 4))),
    "probabilities": (CrossEntropyLoss(), normal(N, C), rng.dirichlet(np.ones(C), N)),
    **{
        f"tokens {reduction} {words}": (SequenceCrossEntropyLoss(weight, reduction=reduction), normal(N, 5, 4), TOKENS)
        for reduction in ("mean", "sum", "batchmean")
        for words, weight in (("", None), ("weight", [0.1, 5, 1, 2]))
    },
    "elbo": (ELBOLoss(), CODES, rng.uniform(size=(N, 6))),
    **{
        f"{name} {reduction}": (getattr(backhand.losses, name)(reduction=reduction), x, y)
        for reduction in ("mean", "sum")
        for name, x, y in (
            ("MSELoss", normal(N, 4), normal(N, 4, seed=3)),
            ("L1Loss", normal(N), normal(N, seed=3)),
            ("HuberLoss", normal(N, 4), normal(N, 4, seed=3)),
            ("SmoothL1Loss", normal(N, 4), normal(N, 4, seed=3)),
            ("BCEWithLogitsLoss", normal(N, 4), rng.uniform(size=(N, 4))),
            ("BCELoss", rng.uniform(0.1, 0.9, (N, 4)), rng.uniform(size=(N, 4))),
            ("MultiLabelSoftMarginLoss", normal(N, 4), rng.uniform(size=(N, 4))),
            ("SoftMarginLoss", normal(N, 4), np.sign(normal(N, 4, seed=3))),
            ("KLDivLoss", normal(N, 4), rng.uniform(size=(N, 4))),
            ("PoissonNLLLoss", normal(N, 4), rng.uniform(size=(N, 4))),
            ("HingeEmbeddingLoss", normal(N, 4), np.sign(normal(N, 4, seed=3))),
            ("MultiMarginLoss", normal(N, C), np.arange(N) % C),
            ("MultiLabelMarginLoss", normal(N, C), np.tile([1, -1, 0], (N, 1))),
        )
    },
    "KLDivLoss batchmean": (backhand.losses.KLDivLoss(reduction="batchmean"), normal(N, 4), rng.uniform(size=(N, 4))),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_over_batches_is_that_of_one_batch(name, size):
    loss, x, y = LOSSES[name]
    whole = loss.eval().forward(*(x if isinstance(x, tuple) else (x,)), y)
    if loss.reduction == "sum":
        whole /= N
    found = evaluated(loss, x, y, size, metrics={})
    assert found == {"loss": pytest.approx(whole, rel=1e-6)}
    assert type(found["loss"]) is float


@pytest.mark.parametrize("size", SIZES)
def test_sequences_of_bits_are_counted_where_they_stand(size):
    x, y = normal(6, N, 3), rng.integers(0, 2, (4, N, 3)).astype(float)
    metrics = {"bits": bits_per_sequence, "wrong": wrong_bits}
    found = evaluated(SequenceBCELoss(), x, y, size, metrics, axis=1)
    expected = {"loss": SequenceBCELoss().eval().forward(x, y), "bits": bits_per_sequence(x, y)}
    assert found == pytest.approx({**expected, "wrong": wrong_bits(x, y)})


def test_batches_of_different_lengths_count_by_their_labels():
    x, y = normal(4, 6, 3), rng.integers(0, 3, (4, 6))
    short = normal(2, 2, 3, seed=5), rng.integers(0, 3, (2, 2))
    loss = SequenceCrossEntropyLoss()
    total = (24 * loss.eval().forward(x, y) + 4 * loss.forward(*short)) / 28
    model = Handed()
    found = Trainer(model, loss, SGD(model.parameters()), progress=False).evaluate([(x, y), short])
    assert found["loss"] == pytest.approx(total)
    hits = np.concatenate([(a.argmax(-1) == b).ravel() for a, b in ((x, y), short)])
    assert found["accuracy"] == pytest.approx(hits.mean())
    assert math.exp(found["loss"]) != pytest.approx(math.exp((loss.forward(x, y) + loss.forward(*short)) / 2))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LOSSES)
def test_the_training_loss_and_its_records_are_such_means_too(name, size):
    loss, x, y = LOSSES[name]
    whole = loss.eval().forward(*(x if isinstance(x, tuple) else (x,)), y)
    model = Handed()
    one = Trainer(model, loss, SGD(model.parameters(), 0.0), metrics={}, progress=False, log_every=1)
    history = one.fit((x, y), (x, y), epochs=1, batch_size=size)
    record = history.records[-1]
    expected = whole / N if loss.reduction == "sum" else whole
    assert (record["loss"], record["val_loss"]) == pytest.approx((expected, expected), rel=1e-6)
    if size == N:
        assert history["batch_loss"] == pytest.approx(expected, rel=1e-6)
    assert all(type(value) in (int, float) for record in history for value in record.values())


def test_the_examples_with_weights_and_with_ignored_labels():
    x, y = normal(10, 3), np.arange(10) % 3
    whole = CrossEntropyLoss(WEIGHT).forward(x, y)
    assert {size: evaluated(CrossEntropyLoss(WEIGHT), x, y, size)["loss"] for size in SIZES} == {
        size: pytest.approx(whole) for size in SIZES
    }
    hits = x.argmax(1) == LABELS
    for size in SIZES:
        found = evaluated(CrossEntropyLoss(), x, LABELS, size)
        assert found["accuracy"] == pytest.approx(hits[LABELS != -100].mean())


def test_every_loss_says_of_how_much_its_mean_is_one():
    seen = set()
    for case in families("CASES"):
        if not issubclass(case.cls, Loss) or case.kwargs.get("reduction", "mean") not in ("mean", "batchmean"):
            continue
        loss = case.build()
        if loss.reduction not in ("mean", "batchmean"):
            continue
        seen.add(case.cls.__name__)
        value = loss.forward(*case.arrays())
        summing = copy.deepcopy(loss).eval()
        summing.reduction = "sum"
        if case.cls.__name__ != "CTCLoss":  # whose mean is one of means by length
            assert value * value.count == pytest.approx(summing.forward(*case.arrays()), rel=1e-9)
        # and the gradient of count times the mean is that of the sum
        mean, total = loss.backward(value.count), None
        if case.cls.__name__ != "CTCLoss":
            summing.eval(caching=True)
            summing.forward(*case.arrays())
            total = summing.backward()
            pairs = zip(mean, total, strict=True) if isinstance(mean, tuple) else [(mean, total)]
            for a, b in pairs:
                assert (a is None and b is None) or np.allclose(a, b, rtol=1e-9, atol=1e-15)
    losses = {name for name in backhand.losses.__all__ if name not in ("Loss", "Mean")}
    assert losses - seen <= {"SequenceBCELoss", "ELBOLoss"} | {"CTCLoss"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: CrossEntropyLoss(WEIGHT),
        lambda: CrossEntropyLoss(),
        lambda: CrossEntropyLoss([0, 1, 2]),
        lambda: CrossEntropyLoss(WEIGHT, label_smoothing=0.1),
        lambda: NLLLoss(WEIGHT),
    ],
)
@pytest.mark.parametrize("sizes", [(3, 3, 4), (1,) * 10, (7, 3), (2, 3, 5)])
def test_gradients_of_parts_add_up_to_that_of_the_whole(make, sizes):
    x, y = normal(N, 4), LABELS
    model, loss = net(dtype=np.float64), make()
    value = loss(model(x), y)
    model.backward(loss.backward())
    whole = [p.grad.copy() for p in model.parameters()]
    model.zero_grad()
    total, summed, start = 0.0, 0.0, 0
    for size in sizes:
        rows = slice(start, start + size)
        start += size
        part = loss(model(x[rows]), y[rows])
        model.backward(loss.backward(part.count))
        total += part.count
        summed += part * part.count if part.count else 0
    for parameter in model.parameters():
        parameter.grad /= total
    assert total == pytest.approx(value.count) and summed / total == pytest.approx(value)
    for parameter, expected in zip(model.parameters(), whole, strict=True):
        np.testing.assert_allclose(parameter.grad, expected, rtol=1e-6, atol=1e-12)


# ---------------------------------------------------------------------- metrics

SCORES = normal(N, C)
METRICS = {
    "accuracy": (accuracy, SCORES, LABELS),
    "top_k": (lambda s, t: top_k_accuracy(s, t, 2), SCORES, LABELS),
    "binary": (binary_accuracy, normal(N, 4), rng.integers(0, 2, (N, 4))),
    "iou": (intersection_over_union, normal(N, 2, 5), rng.choice([0, 1, -100], (N, 5), p=[0.2, 0.2, 0.6])),
    "sequences": (whole_sequences, normal(N, 2, 3), np.where(rng.random((N, 2)) < 0.6, -100, 1)),
    "pixels": (accuracy, normal(N, C, 4), rng.choice([0, 1, 2, -100], (N, 4), p=[0.1, 0.1, 0.1, 0.7])),
    "squared error": (_squared_error, normal(N, 4), rng.uniform(size=(N, 4))),
    "kl": (_kl, CODES, rng.uniform(size=(N, 6))),
    "plain": (lambda s, t: float(np.mean(s > 0)), normal(N, 4), normal(N, 4)),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_over_batches_is_that_of_one_batch(name, size):
    metric, x, y = METRICS[name]

    class Nothing(Loss):
        def forward(self, *_):
            return 1.0

    assert not math.isnan(metric(x, y))
    found = evaluated(Nothing(), x, y, size, {"it": metric})
    assert found == {"loss": 1.0, "it": pytest.approx(float(metric(x, y)))}
    assert type(found["it"]) is float


def test_metrics_count_what_they_say():
    assert accuracy(SCORES, LABELS).count == 6 == top_k_accuracy(SCORES, LABELS, 1).count
    assert top_k_accuracy(SCORES, LABELS, 1) == accuracy(SCORES, LABELS)
    assert top_k_accuracy(SCORES, np.where(LABELS < 0, 255, LABELS), 1, 255) == accuracy(SCORES, LABELS)
    for labels in (np.full(N, 3), np.full(N, -1)):
        with pytest.raises(ValueError, match=f"expected labels from 0 to 2 .or ignore_index, -100., got {labels[0]}"):
            top_k_accuracy(SCORES, labels)
    one = np.array([[[1.0, 0], [0, 1]]] * 2)
    assert whole_sequences(one, [[0, 1], [-100, -100]]) == 1 and whole_sequences(one, [[0, 1], [-100] * 2]).count == 1
    assert whole_sequences(one, [[1, 1], [-100, 1]]) == 0.5
    ink = np.array([[[0.0, 0, 0], [1, 1, -1]]])
    assert intersection_over_union(ink, [[1, -100, 0]]) == 1 and intersection_over_union(ink, [[1, 0, 0]]) == 0.5
    for metric, x, y in ((accuracy, SCORES, LABELS), (top_k_accuracy, SCORES, LABELS), (whole_sequences, one, one[0])):
        nothing = metric(x, np.full(np.shape(y), -100))
        assert math.isnan(nothing) and nothing.count == 0


def test_a_plateau_and_the_monitor_see_these_means():
    x, y = normal(N, 4).astype(np.float32), LABELS
    seen = []
    for size in (1, N):
        model = net()
        optimizer = SGD(model.parameters(), 0.0)
        schedule = ReduceLROnPlateau(optimizer)
        one = Trainer(model, CrossEntropyLoss(WEIGHT), optimizer, schedule=schedule, progress=False)
        one.fit((x, y), (x, y), epochs=1, batch_size=size)
        seen.append((one.best, schedule.best))
    assert seen[0] == pytest.approx(seen[1], rel=1e-5)


# ---------------------------------------------------------------------- a Mean is a float


def test_a_mean_is_a_float_for_everybody():
    mean = Mean(2.5, 4)
    assert isinstance(mean, float) and mean == 2.5 and f"{mean:.1f} {mean}" == "2.5 2.5" and repr(mean) == "2.5"
    assert json.dumps({"loss": mean}) == '{"loss": 2.5}'
    assert type(mean + 1) is float and type(np.float64(1) + mean) is np.float64
    for same, value in ((0.5 * mean, 1.25), (mean * 2, 5.0), (mean / 5, 0.5), (mean + Mean(1.5, 4), 4.0)):
        assert type(same) is Mean and same == value and same.count == 4
    assert type(mean + Mean(1.5, 3)) is float
    single = np.ones(2, np.float32)
    for value in (single * mean, mean * single, single / mean, np.multiply(mean, single)):
        assert value.dtype == np.float32
    assert (np.float32(2) * mean).dtype == (np.float32(2) * 2.5).dtype  # float64 in NumPy 1
    single *= mean
    assert single.tolist() == [2.5, 2.5] and np.mean([mean, mean]) == 2.5 and np.isfinite(mean)
    for again in (pickle.loads(pickle.dumps(mean)), copy.copy(mean), copy.deepcopy(mean)):
        assert again == 2.5 and again.count == 4 and type(again) is Mean


def test_a_loss_made_of_losses_counts_as_they_do():
    class Half(Loss):
        def __init__(self):
            super().__init__()
            self.inner = CrossEntropyLoss()

        def forward(self, x, target):
            return 0.5 * self.inner(x, target)

        def backward(self, dout=1.0):
            return self.inner.backward(0.5 * dout)

    model = Linear(4, 3, rng=0)
    trainer = Trainer(model, Half(), SGD(model.parameters(), 0.1), progress=False)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 4)), rng.integers(0, 3, 12)
    y[:7] = -100
    whole = trainer.evaluate((x, y), batch_size=12)["loss"]
    for size in (1, 3, 4, 5):
        assert trainer.evaluate((x, y), batch_size=size)["loss"] == pytest.approx(whole, rel=1e-5)
    assert trainer.fit((x, y), epochs=1, batch_size=3, shuffle=False)["skipped"].tolist() == [2]


# ---------------------------------------------------------------------- where nothing counts

NONE = [
    (CrossEntropyLoss(), np.array([-100, -100, -100, 0, 1, 2])),
    (CrossEntropyLoss(label_smoothing=0.1), np.array([-100, -100, -100, 0, 1, 2])),
    (CrossEntropyLoss(ignore_index=2), np.array([2, 2, 2, 0, 1, 0])),
    (CrossEntropyLoss([1, 1, 0]), np.array([2, 2, 2, 0, 1, 0])),
    (NLLLoss(), np.array([-100, -100, -100, 0, 1, 2])),
    (NLLLoss([1, 1, 0]), np.array([2, 2, 2, 0, 1, 2])),
    (SequenceCrossEntropyLoss(), np.array([-100, -100, -100, 0, 1, 2])),
    (SequenceCrossEntropyLoss([1, 1, 0], ignore_index=0), np.array([2, 0, 2, 1, 1, 0])),
]


def models():
    return Sequential(Linear(4, 6, rng=0), BatchNorm1d(6), Dropout(0.5, rng=3), Linear(6, 3, rng=1))


@pytest.mark.parametrize(("loss", "y"), NONE)
def test_a_batch_in_which_nothing_counts_is_passed_over(loss, y):
    x = normal(6, 4).astype(np.float32)
    assert math.isnan(loss(models()(x[:3]), y[:3]))  # as in torch
    loss.zero_grad()

    def trained(batches):
        model = models()
        optimizer = Adam(model.parameters(), 0.01)
        schedule = StepLR(optimizer, 1, 0.5)
        calls = []
        one = Trainer(
            model, loss, optimizer, schedule=schedule, schedule_every="batch", progress=False, log_every=1,
            after_step=lambda: calls.append(1),
        )  # fmt: skip
        evaluated = one.evaluate(batches)
        one.fit(batches, batches, epochs=2)
        assert len(calls) == one.steps == schedule.last_epoch == 4
        assert all(not vars(layer).get("_stack") for each in (model, loss) for layer in each.modules())
        return one, evaluated

    batches = [(x[a : a + 3], y[a : a + 3]) for a in (0, 3)]
    without, first = trained([batches[1]] * 2)
    between, second = trained([batches[1], batches[0], batches[1]])
    at_the_start, _ = trained([batches[0], batches[0], batches[1], batches[1]])
    assert first["loss"] == pytest.approx(second["loss"]) and math.isfinite(first["loss"])
    for one, skipped in ((between, 1), (at_the_start, 2)):
        np.testing.assert_equal(one.model.state_dict(), without.model.state_dict())
        records = [record for record in one.history if "loss" in record]
        assert [record.pop("skipped") for record in records] == [skipped] * 2
        for mine, other in zip(one.history, without.history, strict=True):
            for name in mine.keys() & {"step", "loss", "val_loss", "batch_loss", "lr"}:
                assert mine[name] == pytest.approx(other[name])
    assert "skipped" not in without.history


def test_the_example_of_three_ignored_labels(tmp_path, capsys):
    y = np.array([-100, -100, -100, 0, 1, 2])
    x = normal(6, 4).astype(np.float32)
    model = net()
    one = Trainer(model, CrossEntropyLoss(), SGD(model.parameters(), 0.1), folder=tmp_path)
    right = CrossEntropyLoss().forward(model.forward(x), y)
    model.zero_grad()
    assert one.evaluate((x, y), batch_size=3)["loss"] == pytest.approx(right)
    one.fit((x, y), epochs=1, batch_size=3, shuffle=False)
    assert one.steps == 1 and History.read(tmp_path / "history.jsonl").records[-1]["skipped"] == 1
    assert "skipped 1  " in capsys.readouterr().out


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), NLLLoss(), SequenceCrossEntropyLoss()])
def test_where_nothing_at_all_counts(loss, capsys, tmp_path):
    x, y = normal(6, 4).astype(np.float32), np.full(6, -100)
    model = net()
    before = model.state_dict()
    one = Trainer(model, loss, SGD(model.parameters(), 0.1), folder=tmp_path, patience=1)
    assert all(map(math.isnan, one.evaluate((x, y)).values()))
    for data in ((x, y), [(x, y), (x, y)]):
        with pytest.raises(ValueError, match="batches in which nothing counts: every label is ignored"):
            one.fit(data, (x, y), epochs=2, batch_size=2)
    np.testing.assert_equal(model.state_dict(), before)
    assert one.epochs == one.steps == len(one.history) == 0 and not list(tmp_path.iterdir())
    one.fit((x, np.arange(6) % 3), (x, y), epochs=5)
    assert "or no label that counts" in capsys.readouterr().out


def test_empty_batches_and_metrics_of_users_do_not_spoil_a_mean():
    y = np.array([-100, -100, -100, 0, 1, 2])

    def plain(scores, target):
        chosen = target != -100
        return float((scores.argmax(1) == target)[chosen].mean()) if chosen.any() else math.nan

    found = evaluated(CrossEntropyLoss(), SCORES[:6], y, 3, {"plain": plain})
    assert found["plain"] == plain(SCORES[:6], y)


def test_the_error_says_nan_for_nan_and_inf_for_inf():
    for value in (math.nan, math.inf):

        class Breaks(MSELoss):
            def forward(self, x, target, value=value):
                super().forward(x, target)
                return value

        x = np.ones((4, 2))
        model = Linear(2, 2, rng=0)
        one = Trainer(model, Breaks(), SGD(model.parameters()), progress=False)
        with pytest.raises(FloatingPointError, match=f"the loss is {value} .*gave {value} ") as caught:
            one.fit((x, x), epochs=1)
        assert "gave inf" not in str(caught.value) or value == math.inf


# ---------------------------------------------------------------------- looking inside


def test_looking_inside_leaves_out_what_is_ignored():
    x = normal(60, 4).astype(np.float32)
    right = rng.integers(0, 3, 60)
    y = np.where(np.arange(60) % 4, -100, right)
    loss = CrossEntropyLoss()
    assert initial_loss(net(), loss, (x, y), samples=4).loss == pytest.approx(
        initial_loss(net(), loss, (x[::4], right[::4]), samples=4).loss
    )
    learned = overfit(net(), loss, (x, y))
    assert learned.ok and learned.accuracy is not None and learned.samples == 8
    rates = lr_range_test(net(), loss, (x, np.where(np.arange(60) < 50, -100, right)), batch_size=4, steps=20)
    assert np.isfinite(rates.losses).all() and len(rates.losses) == len(rates.lrs) > 5
    weighted = CrossEntropyLoss([0.0, 1.0, 1.0])
    rates = lr_range_test(net(), weighted, (x, np.where(np.arange(60) < 50, 0, 1)), batch_size=4, steps=40)
    assert np.isfinite(rates.losses).all() and 5 < len(rates.losses) == len(rates.lrs) < 40
    report = str(diagnose(net(), (x, y), loss=loss, steps=0))
    assert "3 different labels" in report
    assert "every label is -100, which the loss ignores" in str(diagnose(net(), (x, np.full(60, -100)), loss=loss))
