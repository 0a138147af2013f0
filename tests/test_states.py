"""What a state_dict may leave out, call by an older name, or not hold at all: tied arrays, old keys, wrong values."""

import collections

import numpy as np
import pytest

from backhand.layers import (
    BatchNorm1d,
    Embedding,
    InstanceNorm1d,
    InstanceNorm2d,
    Layer,
    LayerError,
    Linear,
    Parameter,
    PReLU,
)
from backhand.models import GPT, MLP, Repeat, Sequential, ViT
from tests.cases import families
from tests.states import assert_unchanged, snapshot

CASES = [case for case in families("CASES") if case.build().state_dict()]
TRACKING = [case for case in CASES if any(name.endswith("num_batches_tracked") for name in case.build().state_dict())]


def moved(layer):
    """A state_dict in which no array is what it was, and as many whole numbers more."""
    return {name: array + np.asarray(2, array.dtype) for name, array in layer.state_dict().items()}


# ---------------------------------------------------------------------- tied


@pytest.mark.parametrize("case", CASES, ids=str)
def test_of_a_layer_that_stands_twice_one_name_is_enough(case):
    layer = case.build()
    twice = Sequential(layer, Sequential(layer))
    state = moved(layer)
    for other, kept in (("0.", "1.0."), ("1.0.", "0.")):
        given = {kept + name: array for name, array in state.items()}
        assert twice.load_state_dict(given) == ([], [])
        np.testing.assert_equal(layer.state_dict(), state)
        before = snapshot(twice)
        name = next(iter(state))
        with pytest.raises(LayerError, match=r" are one array here, and come with different values"):
            twice.load_state_dict(given | {other + name: state[name] + np.asarray(1, state[name].dtype)}, strict=False)
        assert_unchanged(twice, before)
        assert twice.load_state_dict(given | {other + name: state[name].copy()}) == ([], [])
    found = twice.load_state_dict({}, strict=False)
    assert sorted(found.missing_keys) == sorted(  # or what torch may leave out
        name for name in twice.state_dict() if not name.endswith("num_batches_tracked")
    )


def tied_head():
    model = Sequential({"wte": Embedding(5, 4, rng=0), "head": Linear(4, 5, bias=False, rng=1)})
    model["head"].weight = model["wte"].weight
    return model


def tied_data():
    model = Sequential({"wte": Linear(4, 4, bias=False, rng=0), "head": Linear(4, 4, bias=False, rng=1)})
    model["head"].weight.data = model["wte"].weight.data  # two Parameters, one array
    return model


def tied_views():
    model = tied_data()
    model["head"].weight.data = model["wte"].weight.data[:]
    return model


class Shares(Layer):
    """Buffers and parameters of one array."""

    buffer_names = ("mean", "same")

    def __init__(self):
        self.weights = [Parameter(np.ones(3)), Parameter(np.ones(3))]
        self.named = {"again": self.weights[1]}
        self.mean = self.same = np.zeros(2)


@pytest.mark.parametrize(
    ("make", "one", "other"),
    [
        (tied_head, "wte.weight", "head.weight"),
        (tied_data, "wte.weight", "head.weight"),
        (tied_views, "wte.weight", "head.weight"),
        (lambda: GPT(7, 4, 1, 2, 8, rng=0), "transformer.wte.weight", "lm_head.weight"),
        (Shares, "mean", "same"),
        (Shares, "weights.1", "named.again"),
        (lambda: Sequential(*2 * [Repeat(Linear(3, 3, rng=0), 2)]), "0.body.weight", "1.body.weight"),
        (lambda: Sequential(*2 * [BatchNorm1d(3)]), "0.running_mean", "1.running_mean"),
        (lambda: Sequential(*2 * [BatchNorm1d(3)]), "0.num_batches_tracked", "1.num_batches_tracked"),
    ],
)
def test_what_is_tied_by_hand(make, one, other):
    model = make()
    whole = moved(model)
    for left_out in (one, other):
        model = make()
        assert model.load_state_dict({k: v for k, v in whole.items() if k != left_out}) == ([], [])
        np.testing.assert_equal(model.state_dict(), whole)
    neither = {name: array for name, array in whole.items() if name not in (one, other)}
    if not one.endswith("num_batches_tracked"):
        with pytest.raises(LayerError, match=f"missing: {one}, {other}$"):
            model.load_state_dict(neither)
    before = snapshot(model)
    for different in (whole[other] + np.asarray(1, whole[other].dtype), np.zeros((9, 9))):
        for strict in (True, False):
            with pytest.raises(LayerError, match=f"{one} and {other} are one array here, and come with different"):
                model.load_state_dict(whole | {other: different}, strict)
    assert_unchanged(model, before)


def test_two_names_that_differ_by_less_than_the_dtype_shows_agree():
    model = tied_head()
    exact = np.full((5, 4), 1 / 3)
    exact[0, 0] = np.nan
    model.load_state_dict({"wte.weight": exact, "head.weight": exact.astype(np.float32)})
    np.testing.assert_array_equal(model["wte"].weight.data, exact.astype(np.float32))


def test_arrays_that_are_equal_are_not_one():
    model = Sequential(Linear(3, 3, rng=0), Linear(3, 3, rng=0))
    with pytest.raises(LayerError, match=r"missing: 1\.weight, 1\.bias$"):
        model.load_state_dict({"0.weight": np.ones((3, 3)), "0.bias": np.ones(3)})
    parts = np.zeros((2, 3))  # side by side in one array
    model[0].bias.data, model[1].bias.data = parts
    state = {name: array for name, array in model.state_dict().items() if name != "1.bias"}
    with pytest.raises(LayerError, match=r"missing: 1\.bias$"):
        model.load_state_dict(state)


# ---------------------------------------------------------------------- old keys


@pytest.mark.parametrize("case", TRACKING, ids=str)
def test_a_state_from_before_batches_were_counted(case):
    layer = case.build()
    state = moved(layer)
    old = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
    counts = {name: array for name, array in layer.state_dict().items() if name not in old}
    assert layer.load_state_dict(old) == ([], [])
    np.testing.assert_equal(layer.state_dict(), state | counts)
    some = next(name for name in old if name.endswith("running_mean"))
    with pytest.raises(LayerError, match=f"missing: {some}$"):
        layer.load_state_dict({name: array for name, array in old.items() if name != some})


@pytest.mark.parity
@pytest.mark.parametrize("name", [f"{kind}Norm{n}d" for kind in ("Batch", "Instance") for n in (1, 2, 3)])
def test_old_norms_beside_torch(torch, name):
    import backhand.layers

    options = {"affine": True, "track_running_stats": True}
    for made_by, strict in ((dict, True), (dict, False), (lambda state: state, True), (lambda state: state, False)):
        ours, theirs = getattr(backhand.layers, name)(3, **options), getattr(torch.nn, name)(3, **options)
        theirs.num_batches_tracked += 4
        ours.num_batches_tracked[...] = 4
        state = theirs.state_dict()  # with _metadata, which says that it is new
        del state["num_batches_tracked"]
        state["running_mean"] = torch.ones(3)
        state = made_by(state)
        try:
            wanted = theirs.load_state_dict(dict(state) if type(state) is dict else state, strict)
        except RuntimeError:
            with pytest.raises(LayerError, match=r"missing: num_batches_tracked$"):
                ours.load_state_dict(state, strict)
        else:
            assert ours.load_state_dict(state, strict) == tuple(wanted)
            for key, tensor in theirs.state_dict().items():
                np.testing.assert_array_equal(ours.state_dict()[key], tensor.numpy())


@pytest.mark.parity
@pytest.mark.parametrize("name", ["InstanceNorm1d", "InstanceNorm2d", "BatchNorm2d"])
def test_running_statistics_that_are_not_kept_beside_torch(torch, name):
    import backhand.layers

    options = {"affine": True, "track_running_stats": False}
    for noted in (True, False):
        ours, theirs = getattr(backhand.layers, name)(3, **options), getattr(torch.nn, name)(3, **options)
        state = theirs.state_dict()
        state["running_mean"] = torch.ones(3)
        state = state if noted else dict(state)
        try:
            wanted = theirs.load_state_dict(state, strict=False)
        except RuntimeError as error:
            assert "Unexpected running stats buffer" in str(error)
            with pytest.raises(LayerError, match=r"running_mean are of an Instance.*track_running_stats=True"):
                ours.load_state_dict(state, strict=False)
        else:
            assert ours.load_state_dict(state, strict=False) == tuple(wanted)


def test_running_statistics_of_an_instance_norm_that_keeps_none():
    model = Sequential(InstanceNorm1d(3, affine=True), InstanceNorm2d(3))
    state = moved(model)
    kept = {f"1.{name}": np.ones(3) for name in ("running_mean", "running_var")}
    for strict in (True, False):
        with pytest.raises(
            LayerError, match=r"1\.running_mean and 1\.running_var are of an InstanceNorm2d that tracks"
        ):
            model.load_state_dict(state | kept, strict)
    tracking = Sequential(model[0], InstanceNorm2d(3, track_running_stats=True))
    assert tracking.load_state_dict(state | kept) == ([], [])


def test_numbers_that_had_an_axis_once():
    layer = Sequential(BatchNorm1d(2))
    state = moved(layer)
    layer.load_state_dict(state | {"0.num_batches_tracked": np.array([9])})
    assert layer[0].num_batches_tracked == 9 and layer[0].num_batches_tracked.shape == ()
    for array in (np.array([9, 9]), np.array([[9]])):
        with pytest.raises(LayerError, match=r"0\.num_batches_tracked should be \(\) and is"):
            layer.load_state_dict(state | {"0.num_batches_tracked": array})
    with pytest.raises(LayerError, match=r"weight should be \(1,\) and is \(\)"):
        PReLU().load_state_dict({"weight": np.array(0.5)})  # not the other way round; nor in torch


def test_torchvisions_older_names_in_a_vit():
    model = ViT(8, 4, 2, 2, 8, 16, num_classes=3, rng=0)
    state = moved(model)
    old = {name.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): a for name, a in state.items()}
    assert sum("linear_" in name for name in old) == 8
    assert model.load_state_dict(old) == ([], [])
    np.testing.assert_equal(model.state_dict(), state)


# ---------------------------------------------------------------------- what is no state


@pytest.mark.parametrize("state", [None, 3, [("weight", np.ones(2))], {0: np.ones(2)}, "weight"])
def test_what_is_no_state_dict(state):
    layer = Linear(3, 2, rng=0)
    with pytest.raises(LayerError, match="expected a state_dict, which maps names to arrays, got a "):
        layer.load_state_dict(state)


@pytest.mark.parametrize("value", [None, "text", [[1, 2], [3]], [[1j] * 3] * 2, {"a": 1}, np.full((2, 3), None)])
def test_what_is_no_array_of_numbers(value):
    layer = Linear(3, 2, rng=0)
    before = snapshot(layer)
    for strict in (True, False):
        with pytest.raises(LayerError, match="weight should be numbers and is "):
            layer.load_state_dict({"weight": value, "bias": np.ones(2)}, strict)
    assert_unchanged(layer, before)


@pytest.mark.parity
def test_tensors_of_torch(torch):
    layer = Linear(3, 2, rng=0)
    theirs = torch.nn.Linear(3, 2)
    layer.load_state_dict(theirs.state_dict())
    np.testing.assert_array_equal(layer.weight.data, theirs.weight.detach().numpy())
    with pytest.raises(LayerError, match=r"weight should be numbers and is torch\.bfloat16"):
        layer.load_state_dict(theirs.to(torch.bfloat16).state_dict())


def test_a_state_may_be_any_mapping_and_is_not_changed():
    model = MLP(4, 3, 2, rng=0)
    state = collections.OrderedDict(moved(model))
    names = list(state)
    model.load_state_dict(collections.ChainMap(state))
    assert list(state) == names
    np.testing.assert_equal(model.state_dict(), dict(state))
