"""python -m benchmarks: the command line, and the table that it prints."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys

import numpy as np
from threadpoolctl import threadpool_info

from benchmarks.measure import Row, compare
from benchmarks.sides import cores
from benchmarks.where import where
from benchmarks.workloads import MODELS, SINGLES, WORKLOADS

PACKAGES = {"torch": "torch", "compile": "torch", "jax": "jax"}
HEAD = (
    f"{'workload':<31}{'against':<9}{'ours ms':>9}{'theirs':>9}  {'theirs / ours':<20}"
    f"{'peak MB':>15}{'GFLOP/s':>9}{'share':>7}"
)


def main() -> int:
    """Run it; returns the exit status: 0, 1 where sides did not agree or one failed, 2 for a wrong call."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--workload", metavar="NAME[,NAME]", help="which ones; models, layers or all (default: models)")
    parser.add_argument("--against", default="torch", metavar="SIDE[,SIDE]", help=f"of {', '.join(PACKAGES)}")
    parser.add_argument("--threads", type=int, default=1, help=f"for every side alike (this machine has {cores()})")
    parser.add_argument("--seconds", type=float, default=10, help="the time for each workload (default: 10)")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there")
    parser.add_argument("--where", action="store_true", help="compare nothing: where does our own time go?")
    parser.add_argument("--list", action="store_true", help="print the workloads, and end")
    options = parser.parse_args()
    if options.list:
        print("models:", *MODELS, "layers:", *SINGLES, sep="\n  ")
        return 0
    groups = {"models": list(MODELS), "layers": list(SINGLES), "all": list(WORKLOADS)}
    names = [name for each in (options.workload or "models").split(",") for name in groups.get(each, [each])]
    unknown = [name for name in names if name not in WORKLOADS]
    if unknown:
        parser.error(f"no workload named {', '.join(unknown)}; see --list")
    if options.threads < 1 or options.seconds <= 0:
        parser.error("--threads and --seconds must be above 0")
    if options.where:
        for name in names:
            print(*where(name, options.threads, options.seconds), sep="\n")
        return 0
    against = []
    for side in options.against.split(","):
        if side not in PACKAGES:
            parser.error(f"--against {side}: expected some of {', '.join(PACKAGES)}")
        if importlib.util.find_spec(PACKAGES[side]) is None:
            print(f"{side} is left out: {PACKAGES[side]} is not installed", file=sys.stderr)
        else:
            against.append(side)
    if not against:
        parser.error('nothing to compare with; pip install -e ".[bench]"')

    print(f"NumPy {np.__version__} ({blas()}), {options.threads} of {cores()} cores, float32")
    if "OPENBLAS_CORETYPE" in os.environ:
        print("OPENBLAS_CORETYPE is set: NumPy may be held to the kernels of an older CPU", file=sys.stderr)
    print(HEAD)
    rows: list[Row] = []
    failed = []
    for name in names:
        try:
            found = compare(name, against, options.threads, options.seconds)
        except (AssertionError, RuntimeError) as error:
            failed.append(name)
            print(f"{name}: {error}", file=sys.stderr)
            continue
        rows += found
        for row in found:
            print(line(row), flush=True)
    for text in summary(rows):
        print(text)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"threads": options.threads, "rows": [row._asdict() for row in rows]}, file, indent=1)
    return 1 if failed else 0


def blas() -> str:
    """The BLAS that NumPy multiplies with, and the CPU that it takes this one for."""
    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    return ", ".join(f"{info['internal_api']} {info['version']} {info.get('architecture', '')}" for info in found)


def line(row: Row) -> str:
    """One row of the table."""
    low, middle, high = row.ratio
    what = row.workload if row.part == "step" else f"{row.workload} {row.part}"
    ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
    peak = " / ".join(f"{each / 1e6:.0f}" for each in row.peak)
    rate = f"{'':>9}{'':>7}" if row.gflops is None else f"{row.gflops:>9.1f}{row.share or 0:>7.0%}"
    return f"{what:<31}{row.against:<9}{row.ms[0]:>9.3g}{row.ms[1]:>9.3g}  {ratio:<20}{peak:>15}{rate}"


def summary(rows: list[Row]) -> list[str]:
    """The geometric mean over the models, for each side."""
    lines = []
    for side in dict.fromkeys(row.against for row in rows):
        ratios = [row.ratio[1] for row in rows if row.against == side and row.part == "step"]
        if len(ratios) > 1:
            lines.append(
                f"geometric mean of {len(ratios)} models against {side}: {np.exp(np.mean(np.log(ratios))):.2f}"
            )
    return lines


if __name__ == "__main__":
    sys.exit(main())
