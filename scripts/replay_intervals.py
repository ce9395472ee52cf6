"""What the rule of weights.update_every=auto costs and buys: replayed on weights recorded at every step.

    python scripts/replay_intervals.py [--problems poisson helmholtz ...] [--iterations 1500]
    python scripts/replay_intervals.py --cost 7 [--problems ...] [--iterations 1500]

Trains every problem once, by Adam under exact weights that are updated at every step, and then asks at which steps the
rule (``ntkrun.weights.interval``) would have updated, with its own constants and with others: updates per 100 steps,
and by how much the logarithms of the weights so held are off (rms over steps and terms), over the run and over its
first tenth. The cost is the number of updates times that of one, in steps.

With --cost trains instead, so many times in turn, under no weights and under exact ones by the rule, everything else as
is the default of Adam, and prints the processor time that the whole training under these takes beyond that without.
That is less than what such times differ by on a machine in use, so one step with an update is timed beside one without,
hundreds of times in turn: times the number of updates it is the same share, with less noise.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from hydra import compose, initialize_config_module

import ntkrun
from ntkrun.cli.preflight import own_values
from ntkrun.config.assembly import assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.weights import Request, interval

RULES: dict[str, dict[str, float]] = {
    "auto": {"AHEAD": interval.AHEAD},
    "changes of 0.02": {"CHANGE": 0.02},
    "changes of 0.1": {"CHANGE": 0.1},
    "changes of 0.3": {"CHANGE": 0.3},
    "20 ahead": {"AHEAD": 20},
    "one in 25, 60 ahead": {"AVERAGE": 25, "AHEAD": 60},
    "one in 25, 60 ahead, 0.02": {"AVERAGE": 25, "AHEAD": 60, "CHANGE": 0.02},
}
FIXED = (1, 10, 25, 100)


def train(pde: str, iterations: int, place: str, *overrides: str) -> dict[str, Any]:
    """Train in the directory ``place``/run, with errors on few points and at the ends alone; returns the summary."""
    common = ["optimizer=adam", f"log_every={iterations}", "pde.grid=5", "plots=false", "progress=false"]
    quiet = ["device=cpu", "threads=1", "keep_best=false", f"hydra.run.dir={place}/run"]
    return ntkrun.train([f"pde={pde}", f"iterations={iterations}", *common, *quiet, *overrides]).summary


def recorded(pde: str, iterations: int) -> np.ndarray:
    """Logarithms of the exact weights of every step, ``[steps, terms]``."""
    with tempfile.TemporaryDirectory() as place:
        train(pde, iterations, place, "weights=exact", "weights.update_every=1")
        table = pd.read_csv(Path(place) / "run" / "weights.csv")
    return np.log(table[[name for name in table if name.startswith("weight/")]].to_numpy())


def update_cost(pde: str) -> float:
    """What an update of exact weights costs in the gradient's pass, in steps of Adam: median over pairs of both."""
    with initialize_config_module("ntkrun.conf", version_base="1.3"):
        config = compose("config", overrides=[f"pde={pde}", "optimizer=adam", "weights=exact"])
    built = assemble(read_configuration(own_values(config)))
    objective, optimizer, batch = built.objective, built.optimizer, built.points.at(0)
    state = built.weighting.request(0, objective, batch)
    requests = (Request(built.weighting.weights), state)

    def seconds(request: Request) -> float:
        start = time.process_time()
        optimizer.step(request.evaluate(objective, batch), 1e-9, lambda: None, False)
        return time.process_time() - start

    pairs = [[seconds(request) for request in requests] for _ in range(400)]
    return statistics.median(b / a for a, b in pairs[50:]) - 1


def cost(pde: str, iterations: int, rounds: int) -> str:
    """A row: updates per run and what they add to its processor time, in per cent; median and quartiles."""
    shares, updates = [], 0
    for k in range(rounds + 1):
        seconds = {}
        for weights in ("none", "exact") if k % 2 else ("exact", "none"):
            with tempfile.TemporaryDirectory() as place:
                start = time.process_time()
                summary = train(pde, iterations, place, f"weights={weights}")
                seconds[weights] = time.process_time() - start
            updates = summary["weight_updates"] if weights == "exact" else updates
        if k:  # the first round loads what the others find
            shares.append(100 * (seconds["exact"] / seconds["none"] - 1))
    low, middle, high = statistics.quantiles(shares, n=4)
    one = update_cost(pde)
    share = f"{one:.2f} | {100 * one * updates / iterations:.1f}"
    return f"| {pde} | {updates} | {share} | {seconds['none']:.1f} | {middle:.1f} ({low:.1f} to {high:.1f}) |"


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
    parser.add_argument("--problems", nargs="+", default=["poisson", "klein_gordon", "helmholtz", "wave"])
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--cost", type=int, metavar="ROUNDS", help="measure what updates cost, in so many rounds")
    arguments = parser.parse_args()
    if arguments.cost:
        print("| problem | updates | cost of one, steps | of all, % | seconds without | added to whole runs, % |")
        print("|---|---:|---:|---:|---:|---:|")
        for pde in arguments.problems:
            print(cost(pde, arguments.iterations, arguments.cost), flush=True)
        return
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
