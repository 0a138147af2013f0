"""The optimizers and schedules that the toolkit promises: each is exported, documented and in a table of the tests."""

import inspect

import pytest

import backhand.training
from tests import optimizing, test_schedules, test_schedules_cycles

OPTIMIZERS = [
    "SGD",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "Adagrad",
    "Adadelta",
    "Muon",
    "GravesRMSprop",
    "ExponentialMovingAverage",
]
SCHEDULES = [
    "StepLR",
    "MultiStepLR",
    "ExponentialLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "LinearLR",
    "ConstantLR",
    "PolynomialLR",
    "OneCycleLR",
    "CyclicLR",
    "LambdaLR",
    "MultiplicativeLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "ChainedScheduler",
]


def rows():
    """class name -> how many rows of arguments the tests try beside torch."""
    found = dict.fromkeys([*OPTIMIZERS, *SCHEDULES], 0)
    for cls, _ in optimizing.combinations(*optimizing.CLASSES):
        found[cls.__name__] += 1
    for name, _ in [*test_schedules.GRID, *test_schedules_cycles.GRID]:
        found[name] += 1
    found["ReduceLROnPlateau"] += len(test_schedules_cycles.PLATEAU)
    found["SequentialLR"] += len(test_schedules.CHAINS)
    found["ChainedScheduler"] += len(test_schedules.CHAINED)
    found["ExponentialMovingAverage"] += 10  # tests/test_averaging.py
    return found


@pytest.mark.parametrize("name", [*OPTIMIZERS, *SCHEDULES])
def test_every_promised_class(name):
    assert name in backhand.training.__all__
    cls = getattr(backhand.training, name)
    assert rows()[name] > 2
    doc = inspect.getdoc(cls)
    assert "=" in doc or name in ("SequentialLR", "OneCycleLR")
    assert name not in OPTIMIZERS or any(year in doc for year in map(str, range(1985, 2026)))


@pytest.mark.parametrize("cls", optimizing.CLASSES)
def test_every_argument_of_an_optimizer_is_tried(cls):
    # these stand in every group, with values of their own in each row
    names = set(inspect.signature(cls).parameters) - {"params"}
    assert names == set(optimizing.GRID[cls])


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n not in ("SequentialLR", "ChainedScheduler")])
def test_every_argument_of_a_schedule_is_tried(name):
    grids = [*test_schedules.GRID, *test_schedules_cycles.GRID]
    grids += [("ReduceLROnPlateau", options) for options in test_schedules_cycles.PLATEAU]
    tried = {argument for other, options in grids if other == name for argument in options}
    wanted = set(inspect.signature(getattr(backhand.training, name)).parameters)
    # a momentum is cycled for each optimizer that has one; last_epoch has tests of its own
    assert tried | {"optimizer", "last_epoch", "cycle_momentum"} >= wanted
