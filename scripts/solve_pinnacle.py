"""Error and seconds of the problems of PINNacle, posed as problems of one's own.

Usage: python scripts/solve_pinnacle.py [--problems NAME ...] [--seeds S ...] [--collect]

Runs `ntkrun --config-dir scripts/pinnacle/conf pde=NAME` as a whole process, from its start to its exit, for every
problem and seed, one after the other, and takes the final relative L2 error from the run's summary. After every run,
docs/benchmarks/pinnacle.csv (one row per run) and pinnacle.md (medians over seeds) are written anew; rows of other
problems and seeds stay. --collect only writes the table. Seconds mean something on a quiet machine alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import pandas as pd
import yaml
from whole_run import solve_all

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "benchmarks"
CONF = ROOT / "scripts" / "pinnacle" / "conf"
PROBLEMS = sorted(file.stem for file in (CONF / "pde").glob("*.yaml"))
TOP = """# The problems of PINNacle

[PINNacle](https://arxiv.org/abs/2306.08827) is a benchmark of methods for physics-informed networks. Its problems are
posed as a user would pose them, in files under `scripts/pinnacle`, from the definitions in the repository
[i207M/PINNacle](https://github.com/i207M/PINNacle), and solved by
`ntkrun --config-dir scripts/pinnacle/conf pde=NAME` with nothing else on the command line. The paper's own table of
errors was not available to this project, which does not quote it.
"""


def lines(problem: str) -> int:
    """Lines that pose a problem, without empty ones: of its YAML file and of the module that this names."""
    file = CONF / "pde" / f"{problem}.yaml"
    module = yaml.safe_load(file.read_text(encoding="utf-8"))["_target_"].rpartition(".")[0]
    files = (file, ROOT / f"{module.replace('.', '/')}.py")
    return sum(bool(line.strip()) for each in files for line in each.read_text(encoding="utf-8").splitlines())


def page(table: pd.DataFrame) -> str:
    """Medians over seeds, in Markdown, and notes on the problems."""
    rows = [
        f"Medians over seeds, the largest in brackets, on {os.cpu_count()} cores; `python scripts/solve_pinnacle.py` "
        "makes this table. Lines are those of the problem's module and YAML file that are not empty, errors relative "
        "L2 errors of all fields together, seconds those of the whole command. Where these are missing, the run was "
        "made on a busy machine and ended by a limit of time after so many steps.",
        "",
        "| problem | lines | seeds | error | seconds | steps |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for problem, runs in table.groupby("problem"):
        middle = runs.median(numeric_only=True)
        rows.append(
            f"| {problem} | {lines(str(problem))} | {len(runs)} | {middle['error']:.1e} ({runs['error'].max():.1e}) "
            f"| {_seconds(runs)} | {middle['steps']:.0f} |"
        )
    notes = (CONF.parent / "notes.md").read_text(encoding="utf-8")
    return "\n".join([TOP, *rows, "", notes])


def _seconds(runs: pd.DataFrame) -> str:
    measured = runs["seconds"].dropna()
    return f"{measured.median():.0f} ({measured.max():.0f})" if len(measured) else "-"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S")
    parser.add_argument("--collect", action="store_true", help="write the table of the runs that there are")
    arguments = parser.parse_args()
    file = OUT / "pinnacle.csv"
    seeds = [] if arguments.collect else arguments.seeds
    for table in solve_all(file, arguments.problems, seeds, [f"--config-dir={CONF}"], within=ROOT):
        if not table.empty:
            (OUT / "pinnacle.md").write_text(page(table), encoding="utf-8")
    if table.empty:
        sys.exit("there are no runs")


if __name__ == "__main__":
    main()
