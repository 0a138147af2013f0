"""`backhand check`: what it prints and its exit status."""

import sys

import pytest

from backhand.training.command_line import main

FILE = """
import numpy as np
from helper import twice

class Right:
    def forward(self, x):
        self.x = x
        return x ** 3
    def backward(self, dout):
        return dout * 3 * self.x ** 2

class Wrong(Right):
    def backward(self, dout):
        return twice(super().backward(dout))

class Affine:
    def __init__(self, n, m):
        self.W = np.arange(1.0, n * m + 1).reshape(n, m)
    def forward(self, x):
        self.x = x
        return x @ self.W
    def backward(self, dout):
        self.dW = self.x.T @ dout
        return dout @ self.W.T

class Wide(Affine):
    def __init__(self):
        super().__init__(7, 2)

class Lookup(Wide):
    def forward(self, i):
        self.i = i
        return self.W[i]
    def backward(self, dout):
        self.dW = np.zeros_like(self.W)
        np.add.at(self.dW, self.i, dout)

class Mute:
    def forward(self, x):
        return x

class Broken:
    def __init__(self):
        raise RuntimeError("no such\\nweights")

def relu(x):
    return np.maximum(x, 0), x

def relu_backward(dout, x):
    return dout * (dout > 0)

layer = Wrong()
"""


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    (tmp_path / "own.py").write_text(FILE)
    (tmp_path / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    (tmp_path / "bad.py").write_text("import no_such_module\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "exits.py").write_text("raise SystemExit(0)\n")
    ends = "    def {}(self, x):\n        raise SystemExit(0)\n\n    def {}(self, x):\n        return x\n\n\n"
    classes = [("Back", "backward", "forward"), ("Forth", "forward", "backward")]
    (tmp_path / "ends.py").write_text("".join(f"class {name}:\n{ends.format(*order)}" for name, *order in classes))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        path, modules = list(sys.path), set(sys.modules)
        try:
            status = main(["check", *arguments])
        except SystemExit as stop:
            status = stop.code
        assert sys.path == path and "own" not in sys.modules
        for name in set(sys.modules) - modules:
            del sys.modules[name]
        return status, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ["own.py:Right"],
        ["own.py:Wide"],  # its width is guessed from W
        ["own.py:Affine(3, 2)", "--input", "4,3"],
        ["own.py:Lookup", "--input", "5:7"],
        ["./own.py:Right()", "--input", "2", "--seed", "3"],
    ],
)
def test_a_right_one_exits_0(check, arguments):
    status, out, error = check(*arguments)
    assert status == 0 and "gradients agree" in out and not error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["own.py:Wrong"], "likely: dx is 2 times what it should be"),
        (["own.py:layer", "--input", "5"], "likely: dx is 2 times what it should be"),
        (["own.py:relu,relu_backward", "--input", "4,3"], "taken from dout"),
    ],
)
def test_a_wrong_one_exits_1_and_says_what_is_wrong(check, arguments, words):
    status, out, error = check(*arguments)
    assert status == 1 and words in " ".join(out.split()) and not error
    assert "GRADIENTS DIFFER" in out and "smallest example" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.py:Right"], "nowhere.py: no such file"),
        (["own.py"], "expected FILE.py:CLASS, got 'own.py'"),
        (["bad.py:X"], "bad.py does not import: ModuleNotFoundError: No module named 'no_such_module'"),
        (["syntax.py:X"], "syntax.py does not import: SyntaxError"),
        (["exits.py:X"], "exits.py does not import: SystemExit"),
        (["ends.py:Back", "--input", "2,3"], "Back ends the program: SystemExit"),
        (["ends.py:Forth", "--input", "2,3"], "Forth ends the program: SystemExit"),
        (["own.py:Nothing"], "own.py has no Nothing; it has Right, Wrong, Affine"),
        (["own.py:Affine"], "Affine() cannot be built: TypeError: Affine.__init__() missing 2 required"),
        (["own.py:Broken"], "Broken() cannot be built: RuntimeError: no such weights"),
        (["own.py:Affine(3, q)"], "Affine(3, q) cannot be built: NameError"),
        (["own.py:Mute"], "Mute has no backward()"),
        (["own.py:relu"], "relu has no backward()"),
        (["own.py:Right", "--input", "4,x"], "expected --input like 4,3 or 4,3:10, got '4,x'"),
        (["own.py:Right", "--input", "0"], "expected --input like 4,3 or 4,3:10, got '0'"),
        (["own.py:Wide", "--input", "4,3"], "Wide does not take an input of shape (4, 3): ValueError"),
        (["own.py:Lookup", "--input", "5:99"], "Lookup does not take an input of shape (5,): IndexError"),
        ([], "the following arguments are required: FILE.py:CLASS"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_checked_gets_one_line_and_exit_2(check, arguments, words):
    status, out, error = check(*arguments)
    assert status == 2
    assert words in error
    assert error.count("\n") == 1 and not out
