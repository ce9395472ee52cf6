"""Error and seconds of every problem of the menu at its defaults, against the goals set for them.

Usage: python scripts/solve_menu.py [--problems NAME ...] [--seeds S ...] [--collect] [key=value ...]

Runs `ntkrun pde=NAME` as a whole process, from its start to its exit, for every problem and seed, one after the other;
what follows as key=value is added to every run, such as experiment=precise. Takes the final relative L2 error from the
run's summary. After every run, docs/benchmarks/menu.csv (one row per run) and menu.md (medians over seeds beside the
goals) are written anew; rows of other problems and seeds stay. With key=value, names start with menu_KEY_VALUE.
--collect only writes the table. Ends with status 1 where a goal is missed. Seconds mean something on a quiet machine
alone.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from whole_run import solve_all

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "benchmarks"
GOALS = {  # relative L2 error, and seconds of the whole command on two cores
    "advection": (1e-5, 20),
    "allen_cahn": (1e-4, 90),
    "beam": (1e-5, 40),
    "burgers": (1e-4, 90),
    "cavity": (3e-3, 180),
    "cylinder": (5e-3, 180),
    "diffusion": (1e-6, 30),
    "helmholtz": (1e-5, 60),
    "klein_gordon": (1e-5, 40),
    "korteweg_de_vries": (1e-3, 120),
    "kovasznay": (1e-4, 60),
    "laplace_hole": (1e-5, 60),
    "kuramoto_sivashinsky": (1e-3, 90),
    "lorenz": (1e-5, 30),
    "lotka_volterra": (1e-6, 30),
    "poisson": (1e-7, 10),
    "poisson2d": (1e-6, 60),
    "poisson5d": (1e-4, 60),
    "poisson10d": (1e-3, 60),
    "poisson_l": (1e-3, 60),
    "regression": (1e-6, 20),
    "schroedinger": (1e-3, 90),
    "taylor_green": (1e-3, 60),
    "van_der_pol": (1e-6, 20),
    "wave": (1e-5, 60),
}


def page(table: pd.DataFrame, further: Sequence[str]) -> str:
    """Medians over seeds beside the goals, in Markdown."""
    lines = [
        "# The problems of the menu at their defaults",
        "",
        f"`{' '.join(['ntkrun pde=NAME', *further])}` as a whole command on {os.cpu_count()} cores, medians over seeds "
        "and the largest in brackets; `python scripts/solve_menu.py` makes this table.",
        "",
        "| problem | seeds | error | goal | seconds | goal | of these training | CPU seconds | steps |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for problem, rows in table.groupby("problem"):
        middle = rows.median(numeric_only=True)
        error, seconds = GOALS[str(problem)]
        lines.append(
            f"| {problem} | {len(rows)} | {middle['error']:.1e} ({rows['error'].max():.1e}) | {error:.0e} "
            f"| {middle['seconds']:.1f} ({rows['seconds'].max():.1f}) | {seconds} | {middle['training_seconds']:.1f} "
            f"| {middle['cpu_seconds']:.1f} | {middle['steps']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def missed(table: pd.DataFrame) -> list[str]:
    """Problems whose median error or seconds exceed the goal."""
    middle = table.groupby("problem")[["error", "seconds"]].median()
    return [str(name) for name, row in middle.iterrows() if not (row <= list(GOALS[str(name)])).all()]


def main() -> None:
    """Measure, write and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=GOALS, default=list(GOALS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S")
    parser.add_argument("--collect", action="store_true", help="write the table of the runs that there are")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    name = "_".join(["menu", *(re.sub(r"\W+", "_", each) for each in arguments.overrides)])
    file = OUT / f"{name}.csv"
    seeds = [] if arguments.collect else arguments.seeds
    for table in solve_all(file, arguments.problems, seeds, arguments.overrides):
        if not table.empty:
            (OUT / f"{name}.md").write_text(page(table, arguments.overrides), encoding="utf-8")
    if table.empty:
        sys.exit("there are no runs")
    if not arguments.overrides and (above := missed(table)):
        sys.exit(f"goals are missed: {', '.join(above)}")


if __name__ == "__main__":
    main()
