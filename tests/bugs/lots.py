"""All bugs, by when they were written: the doctor was made with the first lot, and had seen none of a later one.

What it scored on each held-out lot when that was new, before anything was changed for it (detected, right diagnosis
first, right among the first three): layers 100 / 91.9 / 97.3 %, homework 94.8 / 70.7 / 75.9 %, and, when it had
learned from both, the second lot 97.1 / 91.3 / 91.3 %.
"""

from tests.bugs import anywhere, held_out, particular, second, students

LOTS = {
    "written before the doctor": anywhere.BUGS + particular.BUGS,
    "held out: layers": held_out.BUGS,
    "held out: homework": students.BUGS,
    "held out later": second.BUGS,
}
RIGHT_HOMEWORK = students.CASES + second.CASES
