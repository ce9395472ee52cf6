"""Reproduce the figures of docs/reproduction: the claims, what was measured, and whether they hold.

Usage: python scripts/reproduce.py --figure NAME|all [--budget quick|full] [--jobs J]

Every figure is a recipe conf/experiment/NAME.yaml. Its jobs run under outputs/reproduction/BUDGET/NAME; those that
are done already are skipped. Then their tables become one CSV, and from that alone come the figure and the verdicts:
a claim with its criterion, the measured number with its uncertainty, and whether it holds.

Results of --budget full go to docs/reproduction, with a README.md of all figures that are there; those of
--budget quick to outputs/reproduction/quick.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parent))  # for its own processes too

from reproduction import FIGURES
from reproduction.base import Budget, Figure, results, run, save, workers
from reproduction.page import page


def finish(figure: Figure, table: pd.DataFrame, budget: Budget) -> None:
    """Draw a figure and print its verdicts."""
    for name, drawing in figure.plot(table).items():
        save(drawing, results(budget) / name)
    for verdict in figure.verdicts(table):
        print(f"{figure.name}: {verdict}", flush=True)


def main() -> None:
    """Carry out what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", required=True, choices=[*FIGURES, "all"])
    parser.add_argument("--budget", choices=["quick", "full"], default="quick")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes side by side")
    arguments = parser.parse_args()
    names = list(FIGURES) if arguments.figure == "all" else [arguments.figure]
    with workers(arguments.jobs) as pool:
        for name in names:
            start = time.perf_counter()
            table = run(FIGURES[name], arguments.budget, pool)
            finish(FIGURES[name], table, arguments.budget)
            print(f"{name}: {time.perf_counter() - start:.0f} s\n", flush=True)
    path = results(arguments.budget) / "README.md"
    path.write_text(page(arguments.budget), encoding="utf-8")
    print(f"{path}")


if __name__ == "__main__":
    main()
