"""What the rule of weights.update_every=auto costs and buys: replayed on weights recorded at every step.

    python scripts/replay_intervals.py [--problems poisson helmholtz ...] [--iterations 1500]

Trains every problem once, by Adam under exact weights that are updated at every step, and then asks at which steps the
rule (``ntkrun.weights.interval``) would have updated, with its own constants and with others: updates per 100 steps,
and by how much the logarithms of the weights so held are off (rms over steps and terms), over the run and over its
first tenth. The cost is the number of updates times that of one, in steps.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

import ntkrun
from ntkrun.weights import interval

RULES: dict[str, dict[str, float]] = {
    "auto": {"AHEAD": interval.AHEAD},
    "ahead 20": {"AHEAD": 20},
    "ahead 5": {"AHEAD": 5},
    "average 50, ahead 20": {"AVERAGE": 50, "AHEAD": 20},
    "change 0.05": {"CHANGE": 0.05},
    "change 0.05, ahead 20": {"CHANGE": 0.05, "AHEAD": 20},
}
FIXED = (1, 10, 25, 100)


def recorded(pde: str, iterations: int) -> np.ndarray:
    """Logarithms of the exact weights of every step, ``[steps, terms]``."""
    common = ["optimizer=adam", "weights=exact", "weights.update_every=1", f"log_every={iterations}", "pde.grid=5"]
    quiet = ["plots=false", "progress=false", "device=cpu", "threads=1", "keep_best=false"]
    with tempfile.TemporaryDirectory() as place:
        ntkrun.train([f"pde={pde}", f"iterations={iterations}", *common, *quiet, f"hydra.run.dir={place}/run"])
        table = pd.read_csv(Path(place) / "run" / "weights.csv")
    return np.log(table[[name for name in table if name.startswith("weight/")]].to_numpy())


def steps_of(weights: np.ndarray, constants: dict[str, float]) -> list[int]:
    """When the rule updates."""
    with patch.multiple(interval, **constants):
        rule, found = interval.Interval(), list[int]()
        while rule.due < len(weights):
            now = rule.due
            rule.updated(float(np.abs(weights[now] - weights[found[-1]]).max()) if found else math.nan)
            found.append(now)
    return found


def row(pde: str, name: str, weights: np.ndarray, updates: list[int]) -> str:
    """One rule on one problem."""
    held = weights[np.array(updates)[np.searchsorted(updates, np.arange(len(weights)), side="right") - 1]]
    square = ((held - weights) ** 2).mean(1)
    first = math.sqrt(square[: len(weights) // 10].mean())
    rate = 100 * len(updates) / len(weights)
    return f"| {pde} | {name} | {rate:.2g} | {first:.2g} | {math.sqrt(square.mean()):.2g} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=["poisson", "poisson2d", "helmholtz", "klein_gordon"])
    parser.add_argument("--iterations", type=int, default=1500)
    arguments = parser.parse_args()
    print("| problem | rule | updates per 100 steps | error, first tenth | error, all |")
    print("|---|---|---:|---:|---:|")
    for pde in arguments.problems:
        weights = recorded(pde, arguments.iterations)
        for name, constants in RULES.items():
            print(row(pde, name, weights, steps_of(weights, constants)))
        for every in FIXED:
            print(row(pde, f"every {every}", weights, list(range(0, len(weights), every))), flush=True)


if __name__ == "__main__":
    main()
