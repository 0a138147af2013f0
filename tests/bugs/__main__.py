"""Print the doctor's score: `python -m tests.bugs`."""

from tests.bugs.lots import LOTS
from tests.bugs.score import table

print(table(LOTS))
