"""The benchmarks compare like with like: every network, here and in PyTorch, gives one loss and the same gradients.

Nothing is timed here. Both sides live in this process; the processes of a real run are tried once.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backhand.inspection import check_layer
from backhand.models import MLP, ConvNet, LeNet5
from benchmarks import networks
from benchmarks.backhand_nn import Backhand, Heads, OptionA, Positions
from benchmarks.measure import agree, differences
from benchmarks.where import where
from benchmarks.workloads import MODELS, WORKLOADS
from tests.large import Smooth

ROOT = Path(__file__).parent.parent
# These agree too, as every real run checks before it times; here they would take too long.
LARGE = ("wide-mlp", "alexnet", "resnet20", "convnet", "char-lstm")
PARAMETERS = {"digits-mlp": 9_610, "lenet": 61_706, "resnet20": 269_722, "char-lstm": 240_321, "gpt": 804_096}


@pytest.mark.parity
@pytest.mark.parametrize("name", [name for name in WORKLOADS if name not in LARGE])
def test_both_sides_agree(name, torch):
    from benchmarks.sides import Eager, Ours

    threads = torch.get_num_threads()
    try:
        agree(name, Ours(name, 1), [Eager(name, 1)])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parity
def test_a_wrong_gradient_is_found(torch):
    from benchmarks.sides import Eager, Ours

    ours = Ours("digits-mlp", 1)
    scale = ours.model["act1"].backward
    ours.model["act1"].backward = lambda dout: scale(dout) * np.float32(1.001)
    with pytest.raises(AssertionError, match=r"backhand and Eager differ: .*gradient of fc1\.weight"):
        agree("digits-mlp", ours, [Eager("digits-mlp", 1)])


@pytest.mark.parity
def test_a_run_prints_a_table_and_writes_its_numbers(tmp_path, torch):
    out = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "benchmarks", "--workload", "digits-mlp", "--seconds", "0.1", "--json", out]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = [line.split()[:2] for line in result.stdout.splitlines()[2:]]
    assert lines == [["digits-mlp", "torch"]]
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["workload"], row["part"]) == ("digits-mlp", "step")
    assert min(row["ms"]) > 0 and row["ratio"] == sorted(row["ratio"])


@pytest.mark.parity
def test_a_layer_is_timed_forward_and_backward(torch):
    from benchmarks.sides import Eager, Ours

    for side in (Ours("softmax", 1), Eager("softmax", 1)):
        seconds = side.run(2)
        assert list(seconds) == ["forward", "backward"]
        assert all(len(each) == 2 and min(each) > 0 for each in seconds.values())


@pytest.mark.parity
@pytest.mark.parametrize("name", ["resnet20", "alexnet", "convnet"])
def test_without_kinks_float32_agrees_far_more_closely(name, torch):
    # what the tolerance of the benchmark cannot see, a small error in a convolution, would show here
    from benchmarks.torch_nn import Torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = MODELS[name].build(Smooth(Torch()))
    ours = MODELS[name].build(Smooth(Backhand()))
    for side in (ours, theirs):
        for layer in side.modules():
            if type(layer).__name__ == "Dropout":
                layer.p = 0.0
    theirs.load_state_dict({key: torch.from_numpy(array) for key, array in ours.state_dict().items()})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 3, *((224, 224) if name == "alexnet" else (32, 32))), np.float32)
    y = theirs(torch.from_numpy(x))
    dout = rng.standard_normal(y.shape, np.float32)
    y.backward(torch.from_numpy(dout))
    np.testing.assert_allclose(ours(x), y.detach().numpy(), rtol=0, atol=1e-4 * float(y.detach().abs().max()))
    ours.backward(dout)
    theirs = {key: p.grad.numpy() for key, p in theirs.named_parameters()}
    largest = max(np.linalg.norm(gradient) for gradient in theirs.values())
    for key, p in ours.named_parameters():
        size = max(np.linalg.norm(theirs[key]), 1e-3 * largest)
        assert np.linalg.norm(p.grad - theirs[key]) <= 1e-4 * size, key


@pytest.mark.parity
def test_resnet20_agrees_in_float64(torch):
    from benchmarks.torch_nn import Torch

    ours = MODELS["resnet20"].build(Backhand()).astype(np.float64)
    theirs = MODELS["resnet20"].build(Torch()).double()
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    rng = np.random.default_rng(0)
    x, dout = rng.standard_normal((4, 3, 32, 32)), rng.standard_normal((4, 10))
    ours(x)
    ours.backward(dout)
    theirs(torch.from_numpy(x)).backward(torch.from_numpy(dout))
    wanted = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert differences({name: p.grad for name, p in ours.named_parameters()}, wanted, 1e-10) == []


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_published_number_of_parameters(name):
    assert sum(p.size for p in MODELS[name].build(Backhand()).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize(
    "build, model",
    [
        (lambda nn: networks.mlp(nn, 784, 256, 128, 10), lambda: MLP(784, 256, 128, 10)),
        (networks.lenet, LeNet5),
        (networks.convnet, ConvNet),
    ],
    ids=["mlp", "lenet", "convnet"],
)
def test_networks_are_those_of_the_models(build, model):
    shapes = [{k: v.shape for k, v in each.state_dict().items()} for each in (build(Backhand()), model())]
    assert shapes[0] == shapes[1]
    assert [repr(layer) for layer in build(Backhand())] == [repr(layer) for layer in model()]


@pytest.mark.parametrize(
    "layer, shape",
    [(OptionA(2, 6), (2, 2, 5, 4)), (Positions(7, 4), (2, 5, 4)), (Heads(2), (2, 3, 12))],
    ids=["OptionA", "Positions", "Heads"],
)
def test_the_layers_of_the_benchmarks_are_right(layer, shape):
    check_layer(layer, np.random.default_rng(0).standard_normal(shape))


def test_gradients_that_differ_are_named():
    a = {"w": np.ones(4), "b": np.zeros(2)}
    assert differences(a, a, 1e-4) == []
    assert differences({**a, "w": a["w"] * 1.01}, a, 1e-4) == ["gradient of w differs by 0.01 of its size"]
    assert differences({**a, "b": np.full(2, 1e-9)}, a, 1e-4) == []  # noise where the gradient is zero
    assert differences({**a, "w": np.full(4, np.nan)}, a, 1e-4) == ["gradient of w differs by nan of its size"]
    assert differences({"w": a["w"]}, a, 1e-4) == ["gradients of ['b'] are on one side only"]
    assert differences({**a, "b": np.zeros((1, 2))}, a, 1e-4) == ["b has shape (1, 2) here and (2,) there"]


def test_where_names_each_kind_of_layer():
    title, _, *rows = where("digits-mlp", threads=1, seconds=0.01)
    assert title.startswith("digits-mlp: ")
    assert {row.split()[0] for row in rows} == {"Linear", "ReLU", "Flatten", "Sequential", "loss", "optimizer"}
