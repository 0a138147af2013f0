"""The questions that are asked before and while a network is trained, and the page that asks them all."""

import math

import numpy as np
import pytest

from backhand.inspection import (
    dead_relus,
    diagnose,
    initial_loss,
    lr_range_test,
    overfit,
    record,
    saturation,
    update_ratio,
)
from backhand.layers import (
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    Layer,
    Linear,
    LogSoftmax,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
)
from backhand.losses import (
    BCELoss,
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    MSELoss,
    MultiMarginLoss,
    NLLLoss,
    TripletMarginLoss,
)
from backhand.models import Parallel, Sequential
from backhand.training import SGD, Adam
from tests.looking import untouched, used

CE = CrossEntropyLoss()


def blobs(n=200, classes=5, features=8):
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, n)
    centres = 2 * np.random.default_rng(1).standard_normal((classes, features))
    return (centres[y] + rng.standard_normal((n, features))).astype(np.float32), y


def net(*extra, features=8, classes=5):
    return Sequential(Linear(features, 30, rng=0), ReLU(), *extra, Linear(30, classes, rng=1))


X, Y = DATA = blobs()


# ---------------------------------------------------------------------- the first loss


@pytest.mark.parametrize(
    ("head", "loss", "y", "chance", "words"),
    [
        (Identity(), CrossEntropyLoss(), Y, math.log(5), "ln 5 = 1.609"),
        (Identity(), CrossEntropyLoss(label_smoothing=0.2), Y, math.log(5), "ln 5 = 1.609"),
        (LogSoftmax(1), NLLLoss(), Y, math.log(5), "ln 5 = 1.609"),
        (Identity(), BCEWithLogitsLoss(), np.eye(5)[Y], math.log(2), "ln 2 = 0.6931"),
        (Sigmoid(), BCELoss(), np.eye(5)[Y], math.log(2), "ln 2 = 0.6931"),
        (Identity(), MultiMarginLoss(), Y, 4 / 5, "(all scores 0) 0.8"),
        (Identity(), MSELoss(), np.eye(5)[Y], 1 / 5, "(all scores 0) 0.2"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_initial_loss_is_about_that_of_chance(head, loss, y, chance, words):
    model = Sequential(Linear(8, 5, rng=0), head)
    for parameter in model.parameters():
        parameter.data *= 0.1
    with untouched(model, loss):
        found = initial_loss(model, loss, (X, y), samples=10_000)
    assert found.chance == pytest.approx(chance, rel=1e-5) and found.ok and words in str(found)
    assert found.loss == pytest.approx(loss(model(X), y), rel=1e-6)


def test_a_network_that_is_sure_of_itself():
    model = net()
    model[2].weight.data *= 50
    found = initial_loss(model, CE, DATA)
    assert not found.ok and found.loss > 5
    three = Parallel(*(Linear(8, 2, rng=0) for _ in range(3)))
    assert initial_loss(three, TripletMarginLoss(), ((X, X, X), None)).chance is None


# ---------------------------------------------------------------------- dead and saturated


def test_dead_relus():
    model = net(Dropout(0.5, rng=0))
    model[0].bias.data[:12] = -1000
    model = used(model, X)
    with untouched(model):
        (found,) = dead_relus(model, X)
    assert (found.name, found.kind, found.what, found.units, found.stuck) == ("1", "ReLU", "dead", 30, 12)
    zeros = (np.maximum(X @ model[0].weight.data.T + model[0].bias.data, 0) == 0).mean()
    assert found.share == pytest.approx(zeros) and "'1' (ReLU): 12 of 30 units dead" in str(found)
    assert dead_relus(record(model, X)) == [found]


def test_units_of_images_are_channels_and_a_unit_lives_if_any_call_of_it_does():
    model = Sequential(Conv2d(1, 4, 3, rng=0), BatchNorm2d(4), ReLU(), Flatten(), Linear(144, 6, rng=0), ReLU())
    model[1].bias.data[1:3] = -100
    found = dead_relus(model, np.random.default_rng(0).standard_normal((5, 1, 8, 8)).astype(np.float32))
    assert (found[0].units, found[0].stuck, found[1].units) == (4, 2, 6)
    flip = Linear(3, 3, bias=False, rng=0)
    flip.weight.data = -np.eye(3, dtype=np.float32)

    relu = ReLU()
    trace = record(Sequential(flip, relu, flip, relu), np.ones((2, 3), np.float32))
    assert [each.stuck for each in dead_relus(trace)] == [3]
    trace = record(Sequential(flip, relu, flip, relu), -np.ones((2, 3), np.float32))
    assert [each.stuck for each in dead_relus(trace)] == [0]


@pytest.mark.parametrize(("layer", "edge"), [(Tanh(), math.atanh(0.97)), (Sigmoid(), 2 * math.atanh(0.97))])
def test_saturation(layer, edge):
    x = np.array([[0, edge - 0.01, edge + 0.01], [0.1, -edge - 0.01, -9]], np.float32)
    (found,) = saturation(layer, x)
    assert (found.units, found.stuck, found.share) == (3, 1, 3 / 6) and dead_relus(layer, x) == []
    assert saturation(ReLU(), x) == []


# ---------------------------------------------------------------------- the size of a step


def test_update_ratio_is_that_of_the_step():
    model = net()
    model[2].bias.data[:] = 0
    with untouched(model, CE):
        found = {each.name: each.ratio for each in update_ratio(model, CE, DATA, lr=0.1, samples=10_000)}
    assert found.keys() == {"0.weight", "0.bias", "2.weight"}
    CE(model(X), Y)
    model.backward(CE.backward())
    for name, parameter in model.named_parameters():
        if name in found:
            wanted = 0.1 * np.linalg.norm(parameter.grad) / np.linalg.norm(parameter.data)
            assert found[name] == pytest.approx(wanted, rel=1e-4)
    found = update_ratio(model, CE, DATA, optimizer=lambda parameters: Adam(parameters, 1e-2))
    # every number moves by about the rate
    assert found[0].ratio == pytest.approx(1e-2 * math.sqrt(240) / np.linalg.norm(model[0].weight.data), rel=0.1)
    assert found[0].ok and not update_ratio(model, CE, DATA, lr=1e-8)[0].ok
    with pytest.raises(ValueError, match="either lr or optimizer"):
        update_ratio(model, CE, DATA)
    assert len(update_ratio(model.requires_grad_(False), CE, DATA, lr=1)) == 0


# ---------------------------------------------------------------------- short runs


class Blind(Layer):
    """Lets nothing of x through."""

    def forward(self, x):
        self.save(x.shape)
        return np.zeros_like(x)

    def backward(self, dout):
        self.saved()
        return np.zeros_like(dout)


@pytest.mark.parametrize("extra", [(), (BatchNorm1d(30),), (Dropout(0.5, rng=0),)], ids=repr)
def test_a_good_network_learns_a_handful_by_heart(extra):
    model = used(net(*extra), X)
    with untouched(model, CE):
        found = overfit(model, CE, DATA)
    assert found.ok and found.samples == 8 and found.accuracy == 1 and found.losses[-1] < 0.05 * found.losses[0]
    assert "8 samples learned by heart" in str(found) and len(found.losses) < 60


def test_a_broken_one_does_not():
    assert not (found := overfit(Sequential(Blind(), net()), CE, DATA, steps=50)).ok and "NOT learned" in str(found)
    found = overfit(net(classes=1), MSELoss(), (X, X[:, :1]), optimizer=lambda parameters: SGD(parameters, 0.1))
    assert found.ok and found.accuracy is None
    frozen = net(Dropout(0.5, rng=0)).requires_grad_(False)
    assert overfit(frozen, CE, DATA, steps=5).losses == [overfit(frozen, CE, DATA, steps=1).losses[0]] * 5


@pytest.mark.parametrize("optimizer", [None, Adam], ids=["descent", "Adam"])
def test_the_range_of_rates(optimizer):
    model = used(net(Dropout(0.1, rng=0)), X)
    with untouched(model, CE):
        found = lr_range_test(model, CE, DATA, optimizer=optimizer)
    assert len(found.lrs) == len(found.losses) == len(found.smooth) and found.lrs[0] == 1e-5
    assert 1e-3 <= found.suggestion <= 1 and f"{found.suggestion:.1e}" in str(found)
    better = Adam if optimizer else SGD
    step = better(model.parameters(), found.suggestion)
    before = initial_loss(model, CE, DATA).loss
    for _ in range(20):
        step.zero_grad()
        CE(model(X), Y)
        model.backward(CE.backward())
        step.step()
    assert initial_loss(model, CE, DATA).loss < 0.5 * before
    assert lr_range_test(Sequential(Blind(), net()), CE, DATA).suggestion is None
    with pytest.raises(ValueError, match="lowest < highest"):
        lr_range_test(model, CE, DATA, lowest=1, highest=0.1)


def test_a_range_that_runs_away_stops():
    found = lr_range_test(net(classes=1), MSELoss(), (X, X[:, :1]), highest=1e6)
    assert len(found.lrs) < 100 and np.isfinite(found.losses).all()


# ---------------------------------------------------------------------- the page


class Mixing(Layer):
    """A reshape where a transpose was meant."""

    def forward(self, x):
        self.save(x.shape)
        return x.reshape(x.shape[::-1]).T.copy()

    def backward(self, dout):
        (shape,) = self.saved()
        return dout.T.reshape(shape)


FIRST, LAST = Linear(8, 30, rng=0), Linear(9, 5, rng=0)


class LeakyBack(ReLU):
    """Its backward lets everything through."""

    def backward(self, dout):
        return 0 * super().backward(dout) + dout


def test_nothing_is_wrong_with_a_good_network():
    model = used(net(Dropout(0.2, rng=0)), X)
    model.eval()
    with untouched(model, CE):
        page = diagnose(model, DATA, CE, optimizer=lambda parameters: Adam(parameters, 1e-3))
    assert page and page.ok and str(page).endswith("nothing wrong"), str(page)
    assert [f.check for f in page.findings] == [
        "data", "labels", "it runs", "initial loss", "samples apart", "gradients", "gradient flow", "dead units",
        "by heart", "learning rate", "update ratio",
    ]  # fmt: skip
    assert max(len(line) for line in str(page).splitlines()) <= 112 and len(str(page).splitlines()) < 40


def test_models_of_other_kinds_are_well_too():
    rng = np.random.default_rng(0)
    images = rng.standard_normal((40, 1, 8, 8)).astype(np.float32)
    conv = Sequential(Conv2d(1, 4, 3, rng=0), BatchNorm2d(4), Tanh(), Flatten(), Linear(144, 3, rng=0))
    assert diagnose(conv, (images, rng.integers(0, 3, 40))).ok
    words = Sequential(Embedding(10, 8, rng=0), Flatten(), Linear(24, 3, rng=0))
    assert diagnose(words, (rng.integers(0, 10, (40, 3)), rng.integers(0, 3, 40))).ok
    assert diagnose(net(classes=1), (X, X[:, :1] + 1)).ok  # MSELoss
    assert diagnose(net(), DATA, steps=0).findings[-1].check == "dead units"


def zeroed(model):
    for parameter in model.parameters():
        parameter.data[...] = 0
    return model


def with_nan(x):
    x = x.copy()
    x[3, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("model", "data", "loss", "check", "verdict", "words"),
    [
        (net(), (with_nan(X), Y), CE, "data", "WRONG", "1 of 200 samples hold nan or inf, the first of them sample 3"),
        (net(), (0 * X + 1, Y), CE, "data", "WRONG", "every sample is the same"),
        (net(), (100 * X + 500, Y), CE, "data", "look", "mean 4"),
        (net(), (X, 0 * Y), CE, "labels", "WRONG", "1 different label"),
        (net(), (X, (np.arange(200) % 40 == 0).astype(int)), CE, "labels", "look", "commonest"),
        (net(features=7), DATA, CE, "it runs", "WRONG", r"expected x of shape (..., 7)"),
        (net(classes=3), DATA, CE, "it runs", "WRONG", "labels"),
        (Sequential(net(), Softmax(1)), DATA, CE, "scores", "WRONG", "probabilities already"),
        (net(), DATA, NLLLoss(), "scores", "WRONG", "do not sum to 1"),
        (Sequential(net(), Sigmoid()), (X, np.eye(5)[Y]), BCEWithLogitsLoss(), "scores", "WRONG", "has its own"),
        (Sequential(net(), ReLU()), DATA, CE, "scores", "look", "no score can be negative"),
        (Sequential(net(), Tanh()), (X, 3 * np.eye(5)[Y]), MSELoss(), "scores", "WRONG", "from -1 to 1"),
        (Sequential(net(), Mixing()), DATA, CE, "samples apart", "WRONG", "depend on the other samples"),
        (net(LeakyBack()), DATA, CE, "gradients", "ok", ""),
        (Sequential(FIRST, LeakyBack(), Linear(30, 5, rng=1)), DATA, CE, "gradients", "WRONG", "'0.weight' ("),
        (Sequential(Blind(), net()), DATA, CE, "by heart", "WRONG", "NOT learned"),
        (zeroed(net()), DATA, CE, "weights", "WRONG", "all units have the same weights"),
        (zeroed(net()), DATA, CE, "gradients", "look", "no gradient at all reaches '0.weight'"),
        (Sequential(Linear(8, 9, rng=0), Sigmoid(), LAST), (999 * X, Y), CE, "saturation", "WRONG", "9 un"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)  # fmt: skip
def test_what_is_wrong_is_named(model, data, loss, check, verdict, words):
    with untouched(model, loss):
        page = diagnose(model, data, loss, steps=60)
    found = page[check]
    assert found.verdict == verdict and words in found.evidence, str(page)
    if verdict == "WRONG":
        assert not page.ok and "wrong, " in str(page).splitlines()[-1]


def test_numbers_that_overflow_and_units_that_are_dead():
    model = net()
    model[0].weight.data *= 1e30
    assert diagnose(model, DATA)["initial loss"].verdict == "look"
    model = net()
    model[2].weight.data *= np.float32(1e38)
    model[0].weight.data *= 100
    with np.errstate(all="ignore"):
        page = diagnose(model, DATA)
    assert page["finite"].verdict == "WRONG" and "forward: '2' (Linear) gave" in page["finite"].evidence
    assert page.findings[-1].check == "finite"
    model = net()
    model[0].bias.data[:] = -1000
    page = diagnose(model, DATA, steps=0)
    assert page["dead units"].verdict == "WRONG" and "30 of 30 units dead" in page["dead units"].evidence
    assert "'0.weight'" in page["gradients"].evidence
    with pytest.raises(KeyError, match="no check 'colour'; there are data, labels"):
        page["colour"]


def test_data_that_cannot_be_used():
    for data, words in (
        (X, "a pair of arrays"),
        ((X, Y[:5]), r"got \[5, 200\] samples"),
        ((X, None), "expected a loss"),
        ((X[:0], Y[:0]), r"got \[0\] samples"),
    ):
        with pytest.raises(ValueError, match=words):
            diagnose(net(), data)
    with pytest.raises(TypeError, match="model to be a Layer"):
        overfit(3, CE, DATA)
