"""The image architectures beside what is published: counts to the last digit, shapes, names, and float32 beside torch.

The float32 statement is made of two, both at 1e-4 relative: the scores as they come, and all gradients where ReLU and
max-pooling decide alike on both sides. Why not the gradients as they come is in benchmarks/reproduce/beside_torch.py,
the figures of both in benchmarks/reproduce/README.md. The same networks agree at 1e-9 in float64
(test_architectures.py).
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from backhand.layers import LayerError, ReLU
from backhand.models import AlexNet, ResNet
from backhand.training import load_weights, save_weights
from benchmarks import networks
from benchmarks.reproduce import counts
from benchmarks.reproduce.architectures import ARCHITECTURES, Blank, fits, measure

ROOT = Path(__file__).parent.parent
IN_TORCHVISION = [name for name, row in ARCHITECTURES.items() if row.torchvision]
FIVE = ("AlexNet", "AlexNet2012", "VGG-16", "ResNet-18", "ResNet-50")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_published(name):
    row = ARCHITECTURES[name]
    found = measure(row.build(rng=Blank()), row.image)
    assert (found.parameters, found.multiply_adds) == (row.parameters, row.multiply_adds)
    assert fits(found.parameters, row.published[0]) and fits(found.multiply_adds, row.published[1])
    assert found.output == ((10,) if row.image[1] == 32 else (1000,))
    assert {key: found.stages[key] for key in row.stages} == row.stages and row.stages
    assert not row.layers or found.layers == row.layers


def test_what_fits():
    assert fits(714_188_480, "0.714 G") and not fits(714_500_001, "0.714 G")
    assert fits(15_470_264_320, "15.47 G") and not fits(15_475_000_001, "15.47 G")
    assert fits(61_706, "60,000 + 900 + 850 - 44") and not fits(61_706, "61,707")


@pytest.mark.parity
@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_the_published_figures_are_torchvisions(torchvision, name):
    row = ARCHITECTURES[name]
    words = torchvision.models.get_model_weights(row.torchvision).DEFAULT.meta
    assert row.published == (f"{words['num_params']:,}", f"{words['_ops']} G")


@pytest.mark.parity
@pytest.mark.parametrize("name", [*IN_TORCHVISION, "AlexNet2012", "ResNet-20", "LeNet5"])
def test_torch_counts_the_same_multiply_adds(torch, torchvision, name):
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.torch_nn import Torch

    row = ARCHITECTURES[name]
    own = {"AlexNet2012": networks.alexnet_2012, "ResNet-20": networks.resnet20, "LeNet5": networks.lenet}
    size = (1, 28, 28) if name == "LeNet5" else row.image  # padded by 2 in the first layer
    with torch.device("meta"):  # shapes without numbers
        model = own[name](Torch()) if name in own else torchvision.models.get_model(row.torchvision)
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *size))
    assert counter.get_total_flops() == 2 * row.multiply_adds
    assert sum(p.numel() for p in model.parameters()) == row.parameters


@pytest.mark.parity
@pytest.mark.parametrize(
    ("name", "training"), [*((name, True) for name in FIVE), ("ResNet-18", False), ("ResNet-50", False)]
)
def test_float32_beside_torch(torch, torchvision, name, training):
    from benchmarks.reproduce.beside_torch import Beside, agreement

    both = Beside(name, training=training)
    assert list(both.ours.state_dict()) == list(both.theirs.state_dict())
    ours, decisions = both.run_ours()
    plain, _ = both.run_theirs()
    assert agreement(ours, plain).forward <= 1e-4
    alike, ties = both.run_theirs(decisions)
    found = agreement(ours, alike)
    assert found.forward <= 1e-4 and found.gradients <= 1e-4, found
    # so few, and so near to a tie, that it is rounding which decides
    assert ties.number <= 1e-5 * ties.of and ties.farthest <= 1e-4, ties


@pytest.mark.parity
def test_a_wrong_decision_or_gradient_is_found(torch, torchvision, monkeypatch):
    from benchmarks.reproduce.beside_torch import Beside, agreement

    both = Beside("ResNet-18")
    ours, decisions = both.run_ours()
    decisions[3] = ~decisions[3]  # as if a ReLU let through what is negative
    _, ties = both.run_theirs(decisions)
    assert ties.number > 1e-5 * ties.of and ties.farthest > 1
    gradient = ReLU.gradient
    monkeypatch.setattr(ReLU, "gradient", lambda *args: gradient(*args) * np.float32(1.001))
    wrong, decisions = both.run_ours()
    assert agreement(wrong, ours).gradients > 1e-4 > agreement(wrong, ours).forward


@pytest.mark.parity
@pytest.mark.parametrize("name", FIVE)
def test_states_travel_both_ways(torch, torchvision, name):
    from benchmarks.reproduce.beside_torch import PAIRS

    ours = PAIRS[name].ours(Blank())
    with torch.device("meta"):
        theirs = PAIRS[name].theirs()
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == shapes
    # a number of its own for each name, so that each is seen to come into its place
    numbers = {key: i + 1 for i, key in enumerate(shapes)}
    state = {key: np.broadcast_to(np.float32(numbers[key]), shape) for key, shape in shapes.items()}

    # what does not fit is named, all of it at once, and nothing is changed
    first, *_, last = state
    broken = {key: value for key, value in state.items() if key != first}
    broken |= {"module.extra": state[last], last: np.ones((3, 2), np.float32)}
    words = rf"misshapen: {last} should be .*\(1000,\) and is \(3, 2\); missing: {first}; unexpected: module\.extra$"
    with pytest.raises(LayerError, match=words.replace(".weight", r"\.weight").replace(".bias", r"\.bias")):
        ours.load_state_dict(broken)
    assert not ours.state_dict()[first].any()

    ours.load_state_dict(state)
    back = {key: torch.from_numpy(np.asarray(value)) for key, value in ours.state_dict().items()}
    theirs.load_state_dict(back, strict=True, assign=True)
    assert {key: value.min().item() for key, value in theirs.state_dict().items()} == numbers
    assert {key: value.max().item() for key, value in theirs.state_dict().items()} == numbers


@pytest.mark.parity
def test_weights_in_a_file_travel_both_ways(tmp_path, torch, torchvision):
    from safetensors.torch import load_file, save_file

    theirs, ours = torchvision.models.resnet18(num_classes=10), ResNet(18, 10, rng=0)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    report = load_weights(ours, tmp_path / "theirs.safetensors")
    assert str(report) == "122 arrays loaded"
    save_weights(ours, tmp_path / "ours.safetensors")
    other = torchvision.models.resnet18(num_classes=10)
    other.load_state_dict(load_file(tmp_path / "ours.safetensors"))
    assert all(
        torch.equal(a, b) for a, b in zip(other.state_dict().values(), theirs.state_dict().values(), strict=True)
    )


def test_a_file_that_does_not_fit(tmp_path):
    save_weights(ResNet(18, 10, rng=0), tmp_path / "resnet18.safetensors")
    report = load_weights(ResNet(18, 7, rng=0), tmp_path / "resnet18.safetensors", misshapen=True)
    assert str(report).splitlines() == [
        "120 arrays loaded",
        "2 misshapen, left as they were:",
        "  fc.weight: (7, 512) here, (10, 512) in the file",
        "  fc.bias: (7,) here, (10,) in the file",
    ]
    with pytest.raises(LayerError, match=r"misshapen: fc\.bias should be \(7,\) and is \(10,\), fc\.weight"):
        load_weights(ResNet(18, 7, rng=0), tmp_path / "resnet18.safetensors")
    report = load_weights(AlexNet(10, rng=Blank()), tmp_path / "resnet18.safetensors", strict=False)
    assert (len(report.missing_keys), len(report.unexpected_keys)) == (16, 122)
    lines = str(report).splitlines()
    assert lines[1] == "16 missing, left as they were:" and "  features.0.weight" in lines
    assert "122 unexpected, not used:" in lines and "  layer4.1.bn2.num_batches_tracked" in lines


def test_the_command_prints_the_table(monkeypatch, capsys):
    rows = {name: ARCHITECTURES[name] for name in ("LeNet5", "ResNet-20")}
    rows["wrong"] = rows["LeNet5"]._replace(multiply_adds=416_521)
    monkeypatch.setattr(counts, "ARCHITECTURES", rows)
    monkeypatch.setattr(sys, "argv", ["counts", "--counts-only"])
    counts.main()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert lines[3] == [
        "ResNet-20",
        "269,722",
        "0.27 M",
        "(10,)",
        "40,551,040",
        "-",
        "yes",
        "arXiv:1512.03385, table 6",
    ]
    assert [row[6] for row in lines[2:]] == ["yes", "yes", "NO"]


def test_without_torch_the_command_says_so(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('No module named torch')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv[1:] = []; "
        "from benchmarks.reproduce import counts; counts.counted = lambda: []; counts.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "No module named torch: without it nothing is compared in float32" in done.stdout
