"""Losses with drawn shapes and arguments beside torch; what torch refuses is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backhand.losses
from backhand.layers import LayerError
from backhand.losses import CTCLoss, GaussianNLLLoss, InfoNCELoss, MultiLabelMarginLoss, NTXentLoss, TripletMarginLoss
from tests.cases import Case, labels, uniform
from tests.cases.losses_ctc import logp
from tests.cases.losses_pointwise import signs
from tests.conftest import need

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::UserWarning")]
torch = need("torch")

from tests import parity  # noqa: E402  (needs torch)


def drawn_settings(n):
    return settings(max_examples=n, deadline=None, derandomize=True)


def accepted(case):
    """Whether torch takes the case; if it does, we agree, if not, we refuse it too."""
    inputs = case.arrays()
    try:
        parity.twin(case)(*(parity.tensor_of(x, False) for x in inputs))
    except (RuntimeError, ValueError, IndexError):
        with pytest.raises((ValueError, TypeError)):
            case.build()(*inputs)
        return False
    parity.drawn(case)
    return True


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


reductions = st.sampled_from(["mean", "sum", "none"])
sizes = st.lists(st.integers(1, 4), max_size=3).map(tuple)
scales = st.sampled_from([1e-3, 1.0, 1.0, 100.0])
seeds = st.integers(0, 99)


@st.composite
def broadcasting(draw):
    """A shape, and another one that broadcasts with it."""
    shape = draw(sizes)
    other = [draw(st.sampled_from([n, n, 1])) for n in shape][draw(st.integers(0, len(shape))) :]
    return (shape, tuple(other)) if draw(st.booleans()) else (tuple(other), shape)


SAME = {
    "HuberLoss": {"delta": st.floats(0.01, 3)},
    "SmoothL1Loss": {"beta": st.sampled_from([0, 0.1, 1.0, 2.5])},
    "BCELoss": {},
    "MultiLabelSoftMarginLoss": {},
}


@drawn_settings(150)
@given(data=st.data(), name=st.sampled_from(list(SAME)), shape=sizes, reduction=reductions, scale=scales, seed=seeds)
def test_one_shape(data, name, shape, reduction, scale, seed):
    more = {key: data.draw(strategy) for key, strategy in SAME[name].items()}
    inputs = [scale * normal(*shape, seed=seed), normal(*shape, seed=seed + 1)]
    if name in ("BCELoss", "MultiLabelSoftMarginLoss"):
        inputs = [uniform(*shape, seed=seed) if name == "BCELoss" else inputs[0], uniform(*shape, seed=seed + 1)]
        if data.draw(st.booleans()):
            weight = [data.draw(st.sampled_from([n, n, 1])) for n in shape][data.draw(st.integers(0, len(shape))) :]
            more["weight"] = uniform(*weight, high=3.0, seed=seed)
    accepted(Case(getattr(backhand.losses, name), (), inputs, kwargs={"reduction": reduction, **more}))


OTHERS = {
    "KLDivLoss": {"log_target": st.booleans()},
    "PoissonNLLLoss": {"log_input": st.booleans(), "full": st.booleans(), "eps": st.sampled_from([1e-8, 0.1])},
    "HingeEmbeddingLoss": {"margin": st.floats(-2, 3)},
    "SoftMarginLoss": {},
}


@drawn_settings(200)
@given(data=st.data(), name=st.sampled_from(list(OTHERS)), shape=sizes, reduction=reductions, seed=seeds)
def test_targets_of_their_own_kind(data, name, shape, reduction, seed):
    more = {key: data.draw(strategy) for key, strategy in OTHERS[name].items()}
    if name == "KLDivLoss":
        reduction = data.draw(st.sampled_from([reduction, "batchmean"]))
    x, target = normal(*shape, seed=seed), uniform(*shape, high=3.0, seed=seed + 1)
    if name in ("HingeEmbeddingLoss", "SoftMarginLoss"):
        target = signs(*shape)
    if not more.get("log_input", True):
        x = np.abs(x)
    accepted(Case(getattr(backhand.losses, name), (), [x, target], kwargs={"reduction": reduction, **more}))


@drawn_settings(200)
@given(name=st.sampled_from(["MSELoss", "GaussianNLLLoss", *OTHERS]), shapes=broadcasting(), seed=seeds)
def test_where_torch_stretches_a_target_we_refuse(name, shapes, seed):
    if shapes[0] == shapes[1]:
        return
    x, target = normal(*shapes[0], seed=seed), signs(*shapes[1])
    more = [uniform(*shapes[0])] if name == "GaussianNLLLoss" else []
    with pytest.raises(LayerError, match="a target of the input's shape") as error:
        getattr(backhand.losses, name)()(x, target, *more)
    if x.size == target.size:
        assert f"target.reshape({', '.join(map(str, x.shape)) or '()'}) mends it" in str(error.value)


@drawn_settings(100)
@given(
    shape=sizes,
    var=st.sampled_from(["same", "one", "missing", "other"]),
    axis=st.integers(0, 2),
    full=st.booleans(),
    eps=st.sampled_from([1e-6, 0.5]),
    reduction=reductions,
    seed=seeds,
)
def test_gaussian(shape, var, axis, full, eps, reduction, seed):
    sizes = list(shape)
    if var == "one" and shape:
        sizes[axis % len(shape)] = 1
    elif var == "missing":
        sizes = sizes[:-1]
    elif var == "other":
        sizes = [1, *sizes]
    inputs = [normal(*shape, seed=seed), normal(*shape, seed=seed + 1), uniform(*sizes, high=2.0, seed=seed)]
    accepted(Case(GaussianNLLLoss, (), inputs, kwargs={"full": full, "eps": eps, "reduction": reduction}))


@drawn_settings(150)
@given(
    name=st.sampled_from(["MarginRankingLoss", "CosineEmbeddingLoss"]),
    shape=sizes,
    margin=st.floats(-1, 1),
    reduction=reductions,
    scale=scales,
    seed=seeds,
)
def test_two_inputs_and_a_target(name, shape, margin, reduction, scale, seed):
    cosine = name == "CosineEmbeddingLoss"
    if cosine and len(shape) > 2:
        shape = (shape[0], int(np.prod(shape[1:])))
    x1, x2 = scale * normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    inputs = [x1, x2, signs(*(shape[:-1] if cosine else shape))]
    accepted(Case(getattr(backhand.losses, name), (margin,), inputs, kwargs={"reduction": reduction}))


@drawn_settings(150)
@given(
    data=st.data(),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    margin=st.floats(0.01, 5),
    p=st.sampled_from([0.0, 0.5, 1, 1.5, 2, 2.5, 4, np.inf]),
    eps=st.sampled_from([1e-6, 0.1]),
    swap=st.booleans(),
    reduction=reductions,
    seed=seeds,
)
def test_triplets(data, shape, margin, p, eps, swap, reduction, seed):
    inputs = []
    for i in range(3):
        sizes = [*(data.draw(st.sampled_from([n, n, n, 1])) for n in shape[:-1]), shape[-1]]
        if data.draw(st.integers(0, 19)) == 0:
            sizes = data.draw(st.sampled_from([[1, *sizes], [*sizes[:-1], 5 if shape[-1] > 1 else 1]]))
        inputs.append(normal(*sizes, seed=seed + i))
    kwargs = {"margin": margin, "p": p, "eps": eps, "swap": swap, "reduction": reduction}
    accepted(Case(TripletMarginLoss, (), inputs, kwargs=kwargs))


@drawn_settings(60)
@given(n=st.integers(0, 4), c=st.integers(1, 6), low=st.sampled_from([-2, -1, -1, 0]), reduction=reductions, seed=seeds)
def test_several_labels(n, c, low, reduction, seed):
    shape = (n, c) if n else (c,)
    target = np.random.default_rng(seed).integers(low, c, shape)
    accepted(Case(MultiLabelMarginLoss, (), [normal(*shape, seed=seed), target], kwargs={"reduction": reduction}))


@drawn_settings(200)
@given(
    data=st.data(),
    steps=st.integers(1, 9),
    n=st.integers(1, 4),
    classes=st.integers(2, 5),
    reduction=reductions,
    zero_infinity=st.booleans(),
    scale=st.sampled_from([0.0, 1.0, 10.0]),
    layout=st.sampled_from(["padded", "row", "single"]),
    seed=seeds,
)
def test_ctc(data, steps, n, classes, reduction, zero_infinity, scale, layout, seed):
    n = 1 if layout == "single" else n
    blank = data.draw(st.integers(0, classes - 1))
    short = data.draw(st.lists(st.integers(0, steps), min_size=n, max_size=n))
    lengths = data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    targets = (labels(classes - 1, n, max(lengths) + 1, seed=seed) + blank + 1) % classes
    x = logp(steps, n, classes, seed=seed, scale=scale)
    if layout != "padded":
        targets = np.concatenate([row[:length] for row, length in zip(targets, lengths, strict=True)])
    inputs = [x[:, 0] if layout == "single" else x, targets, np.array(short), np.array(lengths)]
    assert accepted(Case(CTCLoss, (blank, reduction, zero_infinity), inputs))


class Reference(torch.nn.Module):
    """InfoNCE and NT-Xent as compositions of torch's functions."""

    def __init__(self, both, temperature, reduction):
        super().__init__()
        self.both, self.temperature, self.reduction = both, temperature, reduction

    def forward(self, x, y):
        u, v = (torch.nn.functional.normalize(z, dim=1) for z in (x, y))
        if self.both:
            u = v = torch.cat([u, v])
        scores = u @ v.T / self.temperature
        partner = torch.arange(len(u))
        if self.both:
            scores = scores.masked_fill(torch.eye(len(u), dtype=torch.bool), -torch.inf)
            partner = partner.roll(len(x))
        return torch.nn.functional.cross_entropy(scores, partner, reduction=self.reduction)


@drawn_settings(80)
@given(
    both=st.booleans(),
    n=st.integers(1, 6),
    more=st.integers(0, 3),
    d=st.integers(1, 5),
    temperature=st.sampled_from([0.01, 0.1, 0.5, 2.0]),
    reduction=reductions,
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    seed=seeds,
)
def test_contrastive(both, n, more, d, temperature, reduction, scale, seed):
    x, y = scale * normal(n, d, seed=seed), normal(n if both else n + more, d, seed=seed + 1)
    ours = (NTXentLoss if both else InfoNCELoss)(temperature, reduction=reduction)
    parity.compare(ours, Reference(both, temperature, reduction), [((x, y), {})])
    parity.DRAWN[type(ours).__name__] += 1
