"""The number of threads changes nothing: 1, 2 and 4 agree to 1e-6 in float32, and each agrees with itself to the bit.

Layers split their work over threads where it is worth it. Here they do so wherever they can, however short the parts
are, and at sizes where they would in earnest.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import backhand.layers.threads as threads
from backhand.inspection.gradient_check import leaves, map_leaves
from backhand.losses import CrossEntropyLoss
from backhand.training import optimizers
from tests import large
from tests.cases import families

ROOT = Path(__file__).parent.parent
CASES = families("CASES")


@pytest.fixture(autouse=True)
def usual_threads():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


@pytest.fixture
def eager(monkeypatch):
    """Let every call of `in_parts` split its work if it can: the shortest part is one."""
    usual = threads.in_parts

    def in_parts(work, length, least=1):
        return usual(work, length)

    for name, module in list(sys.modules.items()):
        if name.startswith("backhand.") and getattr(module, "in_parts", None) is usual:
            monkeypatch.setattr(module, "in_parts", in_parts)


def results(layer, inputs, options=None):
    """name -> array: outputs, gradients and buffers after one pass."""
    y = layer.forward(*inputs, **(options or {}))
    rng = np.random.default_rng(2)
    found = {"y": y}
    if np.asarray(next(leaf for _, leaf in leaves(y))).dtype.kind == "f":
        dout = map_leaves(y, lambda each: rng.standard_normal(np.shape(each)).astype(np.asarray(each).dtype))
        found["dx"] = layer.backward(dout)
    flat = {f"{what}{list(path)}": np.asarray(a) for what, tree in found.items() for path, a in leaves(tree)}
    flat |= {f"gradient of {name}": p.grad for name, p in layer.named_parameters()}
    return {name: array for name, array in (flat | dict(layer.named_buffers())).items() if array.dtype != object}


def trained(name, steps=2):
    """name -> array: the losses of some steps of training, and the parameters after them."""
    model, x, target = large.model(name)
    loss, optimizer = CrossEntropyLoss(), optimizers.SGD(model.parameters(), lr=0.01, momentum=0.9)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        values.append(loss(model(x), target))
        model.backward(loss.backward())
        optimizer.step()
    return {"losses": np.array(values), **model.state_dict()}


def agree(got, wanted, tolerance):
    """Assert that two results differ by no more than this, each relative to its size (its norm)."""
    assert got.keys() == wanted.keys()
    # a gradient that is zero in exact arithmetic (a bias before a normalisation) is nothing but rounding
    largest = max(np.linalg.norm(array) for name, array in wanted.items() if np.isfinite(array).all())
    for name, array in wanted.items():
        assert got[name].shape == array.shape and got[name].dtype == array.dtype
        finite = np.isfinite(array)
        assert np.array_equal(got[name][~finite], array[~finite], equal_nan=True)
        size = max(float(np.linalg.norm(array[finite])), 1e-2 * float(largest))
        error = float(np.linalg.norm((got[name].astype(np.float64) - array)[finite]))
        assert error <= tolerance * size, f"{name} differs by {error / size:.2g} of its size"


def identical(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert got[name].tobytes() == array.tobytes(), f"{name} is not the same from one run to the next"


def single(x):
    return map_leaves(x, lambda a: a.astype(np.float32) if a.dtype.kind == "f" else a)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_small_layers_in_many_parts(case, eager):
    inputs = single(case.arrays())
    found = []
    for number in (1, 4, 4):
        threads.set_num_threads(number)
        found.append(results(case.build(np.float32), inputs, case.options))
    one, four, again = found
    agree(four, one, 1e-6)
    identical(again, four)


@pytest.mark.parametrize("name", large.LAYERS)
def test_large_layers(name):
    threads.set_num_threads(1)
    one, again = results(*large.layer(name)), results(*large.layer(name))
    identical(again, one)
    threads.set_num_threads(2)
    two, again = results(*large.layer(name)), results(*large.layer(name))
    identical(again, two)
    agree(two, one, 1e-6)


@pytest.mark.parametrize("name", large.LAYERS)
def test_large_layers_in_many_parts(name, eager):
    threads.set_num_threads(1)
    one = results(*large.layer(name))
    threads.set_num_threads(4)
    agree(results(*large.layer(name)), one, 1e-6)


@pytest.mark.parametrize("name", large.MODELS)
def test_steps_of_training(name):
    threads.set_num_threads(1)
    one = trained(name)
    threads.set_num_threads(2)
    two, again = trained(name), trained(name)
    identical(again, two)
    agree(two, one, 1e-6)


@pytest.mark.parametrize("name", large.MODELS)
def test_a_step_of_training_in_many_parts(name, eager):
    threads.set_num_threads(1)
    one = trained(name, steps=1)
    threads.set_num_threads(4)
    agree(trained(name, steps=1), one, 1e-6)


def digest(number):
    """One number for the parameters of all models after some steps with so many threads."""
    threads.set_num_threads(number)
    found = hashlib.sha256()
    for name in large.MODELS:
        for array in trained(name).values():
            found.update(array.tobytes())
    return found.hexdigest()


def test_two_processes_give_the_same_bits():
    code = "from tests.test_threads_agree import digest; print(digest(2))"
    command = [sys.executable, "-c", code]
    one, two = (subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(2))
    assert len(one.stdout) == 65 and one.stdout == two.stdout


# ---------------------------------------------------------------------- these tests can fail


def test_a_sum_that_depends_on_the_threads_is_noticed():
    x = np.random.default_rng(0).standard_normal(10_001).astype(np.float16)
    found = {}
    for number in (1, 2):
        threads.set_num_threads(number)
        parts = threads.in_parts(lambda part: np.add.reduce(x[part], dtype=np.float16), len(x))
        found[number] = {"y": np.array(np.sum(parts, dtype=np.float16))}
    with pytest.raises(AssertionError, match="differs by"):
        agree(found[2], found[1], 1e-6)


def test_another_bit_is_noticed():
    x = np.ones(3, np.float32)
    with pytest.raises(AssertionError, match="not the same"):
        identical({"y": x}, {"y": np.nextafter(x, np.float32(2))})
