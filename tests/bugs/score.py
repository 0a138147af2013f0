"""The doctor's score: how many of the bugs it finds, and how many it names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from backhand.inspection import GradientReport, check_gradients


@dataclass
class Score:
    """Counts over some bugs; `missed` are those whose right diagnosis did not come first, `reports` are all."""

    bugs: int = 0
    detected: int = 0
    first: int = 0
    among_three: int = 0
    patients: set[str] = field(default_factory=set)
    missed: list[str] = field(default_factory=list)
    reports: list[tuple[Any, GradientReport]] = field(default_factory=list)

    def add(self, bug: Any) -> None:
        thing, inputs = bug.build()
        report = check_gradients(thing, *inputs)
        self.reports.append((bug, report))
        right = {bug.kind, *bug.also}
        kinds = [fault.kind for fault in report.faults]
        self.bugs += 1
        self.detected += not report
        self.first += kinds[:1] != [] and kinds[0] in right
        self.among_three += bool(right & set(kinds[:3]))
        self.patients |= {bug.patient} if hasattr(bug, "patient") else set()
        if not kinds or kinds[0] not in right:
            self.missed.append(f"{bug}: {bug.kind}, but the doctor says {kinds[:3]}")

    def percent(self) -> tuple[float, float, float]:
        return tuple(100 * n / self.bugs for n in (self.detected, self.first, self.among_three))  # type: ignore[return-value]


def scored(bugs: Iterable[Any]) -> tuple[Score, dict[str, Score]]:
    """The score over all bugs, and by kind."""
    total, kinds = Score(), {}
    for bug in bugs:
        total.add(bug)
        kinds.setdefault(bug.kind, []).append(bug)
    by_kind = {}
    for kind, some in sorted(kinds.items()):
        score = Score()
        missed = [line for line in total.missed if any(line.startswith(f"{bug}: {kind},") for bug in some)]
        score.bugs, score.first = len(some), len(some) - len(missed)
        by_kind[kind] = score
    return total, by_kind


def table(lots: dict[str, list[Any]]) -> str:
    """The score of each lot of bugs, then of each kind of bug over all lots."""
    lines = [f"{'bugs':<28}{'number':>8}{'detected':>10}{'first':>9}{'in three':>10}"]
    numbers: dict[str, list[int]] = {}
    everything = Score()
    for name, bugs in lots.items():
        total, kinds = scored(bugs)
        lines.append(_line(name, total))
        for each in ("bugs", "detected", "first", "among_three"):
            setattr(everything, each, getattr(everything, each) + getattr(total, each))
        everything.missed += total.missed
        everything.patients |= total.patients
        for kind, score in kinds.items():
            row = numbers.setdefault(kind, [0, 0])
            row[0] += score.bugs
            row[1] += score.first
    lines += [_line("all", everything), "", f"{'kind of bug':<28}{'number':>8}{'named first':>13}"]
    lines += [f"{kind:<28}{n:>8}{first:>13}" for kind, (n, first) in sorted(numbers.items())]
    lines += ["", f"{len(numbers)} kinds of bug in {len(everything.patients)} layers, and in homework"]
    return "\n".join(lines + [f"  not first: {line}" for line in everything.missed])


def _line(name: str, score: Score) -> str:
    detected, first, three = score.percent()
    return f"{name:<28}{score.bugs:>8}{detected:>8.1f} %{first:>7.1f} %{three:>8.1f} %"
