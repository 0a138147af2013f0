"""What all tests share: figures without a screen, and the parity table at the end of a run."""

import os
import sys

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture(scope="session")
def torch():
    """PyTorch, or a skip; where BACKHAND_REQUIRE_ALL is set (CI), a missing torch is a failure."""
    return need("torch")


@pytest.fixture(scope="session")
def torchvision(torch):
    """torchvision, or a skip, as for torch."""
    from benchmarks.reproduce import beside_torch

    try:
        return beside_torch.torchvision()
    except ImportError as error:
        if os.environ.get("BACKHAND_REQUIRE_ALL"):
            raise
        pytest.skip(str(error))


def need(name):
    if os.environ.get("BACKHAND_REQUIRE_ALL"):
        return __import__(name)
    return pytest.importorskip(name)


@pytest.fixture
def ax():
    """Axes in a figure that pyplot does not know."""
    from matplotlib.figure import Figure

    return Figure().subplots()


@pytest.fixture
def figures_leave_nothing():
    """matplotlib's settings are the same after the test as before; what it opened in pyplot is closed."""
    import matplotlib
    import matplotlib.pyplot as plt

    settings, figures = dict(matplotlib.rcParams), plt.get_fignums()
    yield
    assert dict(matplotlib.rcParams) == settings
    for number in set(plt.get_fignums()) - set(figures):
        plt.close(number)


def pytest_terminal_summary(terminalreporter):
    parity = sys.modules.get("tests.parity")
    if parity and parity.COUNTS:
        agreed, drawn = parity.COUNTS, sum(parity.DRAWN.values())
        tried = {name: max(parity.TRIED[name], agreed[name]) for name in parity.TRIED | agreed}
        total = f"{sum(agreed.values())} of {sum(tried.values())} cases agree, {drawn} of them drawn at random"
        terminalreporter.section(f"beside PyTorch {total}")
        terminalreporter.write_line("  ".join(f"{name} {agreed[name]}/{n}" for name, n in sorted(tried.items())))
