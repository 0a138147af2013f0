"""Position encodings; torch.nn has none, so tests/test_positional.py holds them against their formulas."""

from backhand.layers import RotaryPositionalEncoding, SinusoidalPositionalEncoding
from tests.cases import Case

CASES = [
    Case(SinusoidalPositionalEncoding, (4,), [(2, 3, 4)]),
    Case(SinusoidalPositionalEncoding, (5,), [(3, 2, 5)], kwargs={"axis": 0, "base": 50.0}),
    Case(RotaryPositionalEncoding, (4,), [(2, 3, 4)]),
    Case(RotaryPositionalEncoding, (6,), [(2, 3, 2, 6)], kwargs={"axis": 1, "base": 50.0, "interleaved": False}),
    Case(RotaryPositionalEncoding, (2,), [(3, 2)]),
]
