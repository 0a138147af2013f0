"""How cost grows: the commands run, and what they conclude from numbers is right. Nothing is timed here in earnest."""

import json

import numpy as np
import pytest

from backhand.layers import threads
from benchmarks import growth
from benchmarks.growth_picture import cliffs, exponent
from benchmarks.growth_sizes import FAMILIES, Point, Trained, most_bytes


def curve(seconds, values=(1, 2, 4, 8, 16, 32), bytes=lambda n: 1000 * n, work=lambda n: n):
    return [Point(n, seconds(n), bytes(n), work(n)) for n in values]


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_the_exponent_is_found(power):
    assert exponent(curve(lambda n: 3e-3 * n**power), "seconds") == pytest.approx(power)


def test_what_is_constant_weighs_little():
    assert exponent(curve(lambda n: 1e-3 + 1e-3 * n), "seconds") > 0.85


def test_a_cliff_is_pointed_out():
    assert cliffs(curve(lambda n: n), square=False) == []
    assert cliffs(curve(lambda n: n * (1 if n < 8 else 2)), square=False) == ["time x2.0 at 8"]
    jump = curve(lambda n: n, bytes=lambda n: 1000 * n * (1 if n < 4 else 3))
    assert cliffs(jump, square=False) == ["memory x3.0 at 4"]
    assert cliffs(curve(lambda n: n * n, work=lambda n: n * n, bytes=lambda n: n * n), square=True) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_every_size_can_be_built_and_memory_grows_no_faster_than_the_batch(name, request):
    family = FAMILIES[name]
    small = {axis: min(values) for axis, values in family.axes.items()}
    before = threads.get_num_threads()
    threads.set_num_threads(1)  # as growth measures: what threads hold at once is no matter of the batch
    request.addfinalizer(lambda: threads.set_num_threads(before))
    Trained(family, {**family.usual, **small}).step()
    sizes = [{**family.usual, **small, "batch": n} for n in (64, 128)]  # where what is constant counts little
    one, two = (most_bytes(lambda sizes=sizes: Trained(family, sizes)) for sizes in sizes)
    assert one < two < 2.1 * one


def test_deep_networks_compute_with_ordinary_numbers():
    for name in ("MLP", "LSTM"):
        family = FAMILIES[name]
        trained = Trained(family, {**family.usual, "depth": 64, "batch": 2, "width": 16, "length": 4})
        trained.step()
        gradients = [np.abs(p.grad).max() for p in trained.model.parameters()]
        assert min(gradients) > 1e-20


def test_a_run_prints_draws_and_writes(tmp_path, capsys):
    png, numbers = tmp_path / "growth.png", tmp_path / "growth.json"
    arguments = ["--network", "MLP,GPT", "--by", "batch,width", "--largest", "32", "--seconds", "0"]
    assert growth.main([*arguments, "--figure", str(png), "--json", str(numbers)]) == 0
    lines = [line.split()[:5] for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines == [
        [n, axis, "1" if axis == "batch" else "16", "to", "32"] for n in ("MLP", "GPT") for axis in ("batch", "width")
    ]
    assert png.read_bytes().startswith(b"\x89PNG")
    points = json.loads(numbers.read_text())["MLP"]["batch"]
    assert [point["value"] for point in points] == [1, 2, 4, 8, 16, 32]


def test_memory_and_eval_name_the_models(capsys):
    assert growth.main(["--memory", "--eval", "--model", "digits-mlp", "--seconds", "0"]) == 0
    _, predicted, _, timed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert predicted[0] == timed[0] == "digits-mlp"
    assert abs(float(predicted[7].rstrip("%"))) < 15


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        growth.main(["--network", "RNN"])
    assert "expected some of MLP" in capsys.readouterr().err
