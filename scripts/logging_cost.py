"""What rows, errors and checkpoints cost a run at default settings.

Usage: python scripts/logging_cost.py [--iterations N] [--problems NAME ...] [key=value ...]

Trains every problem at its defaults, compiled, without weights (so that steps are as short as they get), on one
thread, and takes the seconds of each phase from its summary. Writes docs/benchmarks/logging.csv and logging.md: rows
("logging") and relative L2 errors ("evaluation") as parts of the time of training, and checkpoints ("saving") aside.
Ends with status 1 where rows and errors take 1 % of it or more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "benchmarks"
PROBLEMS = sorted(path.stem for path in (ROOT / "conf" / "pde").glob("*.yaml"))
GOAL = 1.0  # percent


def run(problem: str, iterations: int, further: list[str]) -> dict[str, float]:
    """Seconds by phase of a run as a command."""
    with tempfile.TemporaryDirectory() as directory:
        arguments = [
            *(
                f"pde={problem}",
                "optimizer=adam",
                "weights=none",
                "trainer.compile=true",
                "threads=1",
                f"iterations={iterations}",
            ),
            *("plots=false", "progress=false", f"hydra.run.dir={directory}", *further),
        ]
        done = subprocess.run([sys.executable, "-m", "ntkrun", *arguments], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        seconds: dict[str, float] = json.loads((Path(directory) / "summary.json").read_text())["seconds"]
    return seconds


def measure(problem: str, iterations: int, further: list[str]) -> dict[str, str | float]:
    """Milliseconds of a step, and the percentages of its time that go to what is not training."""
    seconds = run(problem, iterations, further)
    shares = {phase: 100 * seconds[phase] / seconds["training"] for phase in ("evaluation", "logging", "saving")}
    return {"problem": problem, "step_ms": 1e3 * seconds["training"] / iterations, **shares}


def page(table: pd.DataFrame, iterations: int) -> str:
    """The table in Markdown."""
    lines = [
        "# What rows, errors and checkpoints cost",
        "",
        f"`python scripts/logging_cost.py --iterations {iterations}`: every problem at its defaults for {iterations:,} "
        "steps, `weights=none`, compiled, one thread, as percentages of the time of training.",
        "",
        "| problem | ms per step | errors | rows | both | checkpoints |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in table.itertuples():
        both = row.evaluation + row.logging
        lines.append(
            f"| {row.problem} | {row.step_ms:.3g} | {row.evaluation:.2f} | {row.logging:.2f} | {both:.2f} "
            f"| {row.saving:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=15000)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS, metavar="NAME")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    arguments = parser.parse_args()
    rows = []
    for problem in arguments.problems:
        rows.append(measure(problem, arguments.iterations, arguments.overrides))
        print(", ".join(f"{k} {v if isinstance(v, str) else f'{v:.3g}'}" for k, v in rows[-1].items()), flush=True)
    table = pd.DataFrame(rows)
    if arguments.problems == PROBLEMS and not arguments.overrides:
        table.to_csv(OUT / "logging.csv", index=False, float_format="%.4g")
        (OUT / "logging.md").write_text(page(table, arguments.iterations), encoding="utf-8")
    if above := [row["problem"] for row in rows if float(row["evaluation"]) + float(row["logging"]) >= GOAL]:
        sys.exit(f"rows and errors take {GOAL:g} % of training or more: {', '.join(map(str, above))}")


if __name__ == "__main__":
    main()
