"""Every layer, gate, container and loss through check_layer; and none of them may be missing from the table."""

import inspect

import pytest

import backhand.layers
import backhand.losses
import backhand.models
from backhand.inspection import check_layer
from backhand.layers import Layer
from backhand.losses import Loss
from tests.cases import families
from tests.cases.models import LARGE

CASES = families("CASES")
ABSTRACT = {Layer, Loss}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_check_layer(case):
    check_layer(case.build(cls=case.checked), *case.arrays())


def exported():
    for package in (backhand.layers, backhand.losses, backhand.models):
        for name in package.__all__:
            value = getattr(package, name)
            if inspect.isclass(value) and issubclass(value, Layer) and value not in ABSTRACT:
                yield value


def without_a_row(cases):
    return sorted(cls.__name__ for cls in set(exported()) - {case.cls for case in cases} - set(LARGE))


def test_every_exported_layer_has_a_row():
    assert without_a_row(CASES) == []


@pytest.mark.parametrize(
    "left_out", sorted(set(exported()) - set(LARGE), key=lambda cls: cls.__name__), ids=lambda cls: cls.__name__
)
def test_completeness_notices_a_layer_that_is_left_out(left_out):
    assert without_a_row([case for case in CASES if case.cls is not left_out]) == [left_out.__name__]


@pytest.mark.parametrize("package", [backhand.layers, backhand.losses, backhand.models], ids=lambda p: p.__name__)
def test_all_is_sorted_and_complete(package):
    public = [
        name
        for name, value in vars(package).items()
        if inspect.isclass(value) and value.__module__.startswith("backhand") and not name.startswith("_")
    ]
    assert sorted(package.__all__) == sorted(public)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_repr_names_the_class_and_changes_nothing(case):
    layer = case.build()
    assert repr(layer).startswith(type(layer).__name__ + "(")
    assert repr(layer) == repr(layer)
