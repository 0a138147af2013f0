"""Layers that move, resample and normalise images, with drawn shapes and arguments: where torch takes them we agree,
where it refuses them we do."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import backhand.layers
from backhand.layers import Fold, GroupNorm, LocalResponseNorm, RMSNorm, Unfold, Upsample
from tests.cases import Case
from tests.conftest import need

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore::UserWarning")]
torch = need("torch")

from tests import parity  # noqa: E402  (needs torch)

drawn = settings(max_examples=120, deadline=None, derandomize=True)
INF = float("inf")


def settle(case, **options):
    """Both take it, with the same numbers, or both refuse it; `options` go to forward."""
    tensors = [parity.tensor_of(x, False) for x in case.arrays()]
    try:
        theirs = parity.twin(case)
        theirs(*tensors, **options)
    except (RuntimeError, ValueError, TypeError):
        with pytest.raises((ValueError, TypeError)):
            case.build().forward(*case.arrays(), **options)
        return
    ours, theirs = case.build(), parity.twin(case)
    theirs.train(not case.eval)
    parity.compare(ours, theirs, [(case.arrays(seed), options) for seed in (1, 2)])
    parity.DRAWN[case.cls.__name__] += 1


def layer(name, n):
    return getattr(backhand.layers, f"{name}{n}d")


def numbers(draw, n, low, high):
    """One number for each axis, or one for all."""
    items = tuple(draw(st.lists(st.integers(low, high), min_size=n, max_size=n)))
    return draw(st.sampled_from([items, items, items[0]]))


def sizes(draw, n, low, high):
    return tuple(draw(st.lists(st.integers(low, high), min_size=n, max_size=n)))


def each(value, n):
    return value if isinstance(value, tuple) else (value,) * n


dimensions = st.integers(1, 3)
leads = st.sampled_from([(), (1,), (2,)])


@settings(drawn, max_examples=250)
@given(st.data())
def test_transposed_convolution(data):
    draw, n = data.draw, data.draw(dimensions)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    channels, filters = (groups * draw(st.integers(1, 2)) for _ in range(2))
    arguments = {
        "kernel_size": numbers(draw, n, 1, 4),
        "stride": numbers(draw, n, 1, 3),
        "padding": numbers(draw, n, 0, 2),
        "groups": draw(st.sampled_from([groups] * 9 + [2])),
        "bias": draw(st.booleans()),
        "dilation": numbers(draw, n, 1, 3),
    }
    k, s, p, d = (each(arguments[name], n) for name in ("kernel_size", "stride", "padding", "dilation"))
    most = draw(st.sampled_from([0, 0, 0, 1])) + np.maximum(s, d) - 1
    arguments["output_padding"] = tuple(draw(st.integers(0, int(extra))) for extra in most)
    spatial = sizes(draw, n, 1, 5)
    x = (*draw(leads), draw(st.sampled_from([channels] * 9 + [channels + 1])), *spatial)
    options = {}
    if draw(st.booleans()):
        least = [(spatial[i] - 1) * s[i] - 2 * p[i] + d[i] * (k[i] - 1) + 1 for i in range(n)]
        options["output_size"] = [low + draw(st.integers(0, s[i] - 1)) for i, low in enumerate(least)]
        options["output_size"][0] += draw(st.sampled_from([0, 0, 0, s[0]]))
    settle(Case(layer("ConvTranspose", n), (channels, filters), [x], kwargs=arguments), **options)


@drawn
@given(st.data())
def test_fold_and_unfold(data):
    draw = data.draw
    k, d, p, s = ((*sizes(draw, 2, low, high),) for low, high in [(1, 3), (1, 2), (0, 2), (1, 3)])
    spatial, channels, lead = sizes(draw, 2, 1, 7), draw(st.integers(1, 2)), draw(leads)
    settle(Case(Unfold, (k, d, p, s), [(*lead, channels, *spatial)]))
    counts = [(spatial[i] + 2 * p[i] - d[i] * (k[i] - 1) - 1) // s[i] + 1 for i in range(2)]
    windows = max(1, counts[0] * counts[1]) + draw(st.sampled_from([0, 0, 0, 1]))
    rows = channels * k[0] * k[1] + draw(st.sampled_from([0, 0, 0, 1]))
    settle(Case(Fold, (spatial, k, d, p, s), [(*lead, rows, windows)]))


@drawn
@given(st.data())
def test_pooling(data):
    draw, n = data.draw, data.draw(dimensions)
    kernel = numbers(draw, n, 1, 4) if n > 1 else draw(st.integers(1, 4))
    stride = draw(st.one_of(st.none(), st.just(numbers(draw, n, 1, 4))))
    ceil_mode = draw(st.booleans())
    spatial = sizes(draw, n, 1, 8)
    norm = draw(st.sampled_from([1, 2.0, 3, 0.5, 4.5, -1, INF, -INF]))
    if n == 3 and ceil_mode:  # torch's AvgPool3d alone wants a whole window to fit
        assume(all(k <= size for k, size in zip(each(kernel, n), spatial, strict=True)))
    x = np.random.default_rng(draw(st.integers(0, 9))).uniform(0.1, 2, (*draw(leads), 2, *spatial))
    settle(Case(layer("LPPool", n), (norm, kernel, stride, ceil_mode), [x]))
    size = draw(st.one_of(st.integers(1, 6), st.tuples(*[st.one_of(st.none(), st.integers(1, 9))] * n)))
    if n == 1 and isinstance(size, tuple):
        size = size[0] or 4
    x = np.round(np.random.default_rng(0).standard_normal((*draw(leads), 2, *spatial)), draw(st.integers(0, 3)))
    settle(Case(layer("AdaptiveMaxPool", n), (size, draw(st.booleans())), [x]))


@drawn
@given(st.data())
def test_unpooling(data):
    draw, n = data.draw, data.draw(dimensions)
    arguments = numbers(draw, n, 1, 3), numbers(draw, n, 1, 3), numbers(draw, n, 0, 1)
    k, s, p = (each(value, n) for value in arguments)
    spatial = sizes(draw, n, 1, 4)
    whole = [(spatial[i] - 1) * s[i] + k[i] - 2 * p[i] for i in range(n)]
    options = {}
    if draw(st.booleans()):
        whole = [size + draw(st.integers(-s[i], s[i])) for i, size in enumerate(whole)]
        options["output_size"] = draw(st.sampled_from([whole, [1, 2, *whole]]))
    assume(min(whole) > 0)  # torch gives an empty array
    volume = int(np.prod(whole))
    assume(volume >= np.prod(spatial))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    shape = (*draw(leads), 2, *spatial)
    rows = [rng.choice(volume, int(np.prod(spatial)), replace=False) for _ in range(int(np.prod(shape[:-n])))]
    index = np.array(rows).reshape(shape) + draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
    settle(Case(layer("MaxUnpool", n), arguments, [shape, index]), **options)


@drawn
@given(st.data())
def test_padding(data):
    draw, n = data.draw, data.draw(dimensions)
    amounts = draw(st.one_of(st.integers(-1, 3), st.tuples(*[st.integers(-2, 4)] * 2 * n)))
    spatial = sizes(draw, n, 2, 7)
    pairs = (amounts,) * 2 * n if isinstance(amounts, int) else amounts
    after = [size + pairs[2 * i] + pairs[2 * i + 1] for i, size in enumerate(spatial[::-1])]
    assume(0 not in after)  # torch gives an empty array
    shape = (*draw(leads), 2, *spatial)
    kinds = ["Zero", "Reflection", "Replication"]
    # torch reads memory that it never wrote where a circular border is longer than what is left beside a crop
    if all(
        max(p[:2]) <= size + min(*p[:2], 0) for size, p in ((s, pairs[2 * i :]) for i, s in enumerate(spatial[::-1]))
    ):
        kinds.append("Circular")
    for kind in kinds:
        settle(Case(layer(f"{kind}Pad", n), (amounts,), [shape]))
    settle(Case(layer("ConstantPad", n), (amounts, draw(st.floats(-3, 3))), [shape]))


@settings(drawn, max_examples=250)
@given(st.data())
def test_upsampling(data):
    draw, n = data.draw, data.draw(dimensions)
    smooth = {1: ["linear"], 2: ["bilinear", "bicubic"], 3: ["trilinear"]}[n]
    mode = draw(st.sampled_from(["nearest", "nearest-exact", "area", *smooth * 2]))
    align = draw(st.sampled_from([None, True, False])) if mode in smooth else None
    old = sizes(draw, n, 1, 7)
    factors = st.floats(0.3, 3.5)
    arguments = draw(
        st.one_of(
            st.fixed_dictionaries({"size": st.one_of(st.integers(1, 12), st.tuples(*[st.integers(1, 12)] * n))}),
            st.fixed_dictionaries(
                {
                    "scale_factor": st.one_of(factors, st.integers(1, 3), st.tuples(*[factors] * n)),
                    "recompute_scale_factor": st.sampled_from([None, False, True]),
                }
            ),
        )
    )
    factor = arguments.get("scale_factor")
    if factor is not None:
        new = [int(size * f) for size, f in zip(old, each(factor, n), strict=True)]
        assume(mode != "area" or min(new) > 0)  # torch gives an empty array
        if not arguments["recompute_scale_factor"]:
            # here torch's backward is not that of its forward: it goes by the sizes, and forward by the factor
            same = [a == b for a, b in zip(old, new, strict=True)]
            twice = [2 * a == b for a, b in zip(old, new, strict=True)]
            assume(not (mode == "nearest" and n != 2 and any(same + twice)))
            assume(not (mode == "bicubic" and all(same)))
    shape = (*draw(st.sampled_from([(1, 2), (2, 1)])), *old)
    settle(Case(Upsample, (), [shape], kwargs={**arguments, "mode": mode, "align_corners": align}))


@drawn
@given(st.data())
def test_normalization(data):
    draw, n = data.draw, data.draw(dimensions)
    spatial, channels, evaluate = sizes(draw, n, 1, 5), draw(st.integers(1, 6)), draw(st.booleans())
    eps = draw(st.sampled_from([1e-5, 0.1, 1.0]))
    arguments = {
        "affine": draw(st.booleans()),
        "track_running_stats": draw(st.booleans()),
        "momentum": draw(st.sampled_from([0.1, None, 0.7])),
        "eps": eps,
    }
    features = channels + draw(st.sampled_from([0, 0, 0, 1]))
    shape = (*draw(leads), channels, *spatial)
    if not (evaluate and np.prod(spatial) == 1):  # settle asks torch in training
        settle(Case(layer("InstanceNorm", n), (features,), [shape], eval=evaluate, kwargs=arguments))
    groups = draw(st.integers(1, 3))
    shape = (draw(st.integers(1, 2)), channels, *spatial[: draw(st.integers(0, n))])
    settle(Case(GroupNorm, (groups, channels, eps, arguments["affine"]), [shape]))
    shape = (2, channels, *spatial)
    last = shape[draw(st.integers(0, len(shape) - 1)) :]
    settle(Case(RMSNorm, (last, draw(st.sampled_from([None, eps])), arguments["affine"]), [shape]))
    alpha, beta, k = draw(st.floats(0, 3)), draw(st.floats(0.1, 2)), draw(st.floats(0.1, 3))
    settle(Case(LocalResponseNorm, (draw(st.integers(1, 8)), alpha, beta, k), [shape]))
