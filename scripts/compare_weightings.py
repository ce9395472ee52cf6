"""Final errors of all problems of the menu under different loss weights.

Usage: python scripts/compare_weightings.py [--jobs J] [--iterations N] [--seeds S ...]
                                            [--problems NAME ...] [--weights NAME ...]
       python scripts/compare_weightings.py --collect [--iterations N]

Trains every problem under every weighting from every seed: Adam with its default network and schedule, and the
configuration's defaults in all else. Each run has a directory outputs/comparison/N/PROBLEM/WEIGHTS/SEED; runs
that have ended are skipped, so an interrupted comparison goes on where it was. Runs are spread over --jobs
processes of one thread each, seed by seed.

Then collects all runs of N iterations that are there into docs/comparison: weightings.csv (one row per run),
the tables of weightings.md (between its two markers; the text around them is kept) and weightings.png. A run
that fails is a row with its status.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_module
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

import ntkrun

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "outputs" / "comparison"
OUT = ROOT / "docs" / "comparison"
BEGIN, END = "<!-- tables: scripts/compare_weightings.py -->", "<!-- end of tables -->"

PROBLEMS = (
    "poisson", "poisson2d", "helmholtz", "wave", "diffusion", "advection",
    "burgers", "allen_cahn", "klein_gordon", "beam", "cavity", "regression",
)  # fmt: skip
COLOURS = {  # of Okabe and Ito, told apart by the colour-blind
    "none": "#000000",
    "exact": "#D55E00",
    "sketched": "#E69F00",
    "fixed": "#0072B2",
    "gradient_norm": "#009E73",
    "relobralo": "#CC79A7",
}
WEIGHTS = tuple(COLOURS)
FIXED = 100  # of every term but the residual, under "fixed"
ERROR = "final_rel_l2"

Run = tuple[str, str, int]


def directory_of(run: Run, iterations: int) -> Path:
    """The directory of a run."""
    problem, weights, seed = run
    return RUNS / str(iterations) / problem / weights / str(seed)


def overrides_of(run: Run, iterations: int) -> list[str]:
    """What a run changes in the configuration."""
    problem, weights, seed = run
    common = [
        f"pde={problem}",
        "optimizer=adam",
        f"seed={seed}",
        f"iterations={iterations}",
        f"log_every={max(1, iterations // 10)}",
    ]
    common += [f"weights={weights}", "device=cpu", "progress=false", "plots=false", "keep_best=false"]
    terms = list(compose("config", overrides=common[:1]).pde.points)
    if weights == "fixed":
        values = ", ".join(f"{term}: {FIXED}" for term in terms if term != "residual")
        common.append(f"++weights.values={{{values}}}")
    if weights == "gradient_norm" and "residual" not in terms:
        common.append(f"weights.reference={terms[0]}")
    return common


def start_worker() -> None:
    """One thread, and no log lines but those in the runs' own files."""
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (open as long as the process lives)


interrupted = False  # in a worker: nothing more is to be started


def train(run: Run, iterations: int) -> str:
    """Carry out one run; returns how it ended, in one line."""
    global interrupted
    directory = directory_of(run, iterations)
    if interrupted:
        return "not started"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        with initialize_config_module("ntkrun.conf", version_base="1.3"):
            overrides = overrides_of(run, iterations)
        done = ntkrun.train([*overrides, "threads=1", f"hydra.run.dir={directory}"])
    except KeyboardInterrupt as error:
        interrupted = True
        return f"interrupted: {error}"
    except Exception as error:
        message = f"{type(error).__name__}: {error}".splitlines()[0]
        status = "refused" if isinstance(error, ntkrun.ConfigError) else "failed"
        if not (directory / "summary.json").exists():
            (directory / "summary.json").write_text(json.dumps({"status": status, "message": message}) + "\n")
        return f"{status}: {message}"
    message = done.summary["message"]
    return f"completed{': ' * bool(message)}{message}"


def summary_of(run: Run, iterations: int) -> dict[str, Any] | None:
    """The summary of a run that has ended, if there is one."""
    path = directory_of(run, iterations) / "summary.json"
    summary: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return summary if summary and summary["status"] not in ("interrupted", "running") else None


def train_all(runs: Sequence[Run], iterations: int, jobs: int) -> None:
    """Carry out the runs that have not ended yet, side by side."""
    missing = [run for run in runs if summary_of(run, iterations) is None]
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them there already", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a worker imports torch
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), start_worker)
    try:
        futures = {pool.submit(train, run, iterations): run for run in missing}
        for done, future in enumerate(as_completed(futures), start=1):
            summary = summary_of(futures[future], iterations) or {}
            error = summary.get("rel_l2", {}).get("final")
            shown = "" if error is None else f", error {error:.3g}"
            name = " ".join(map(str, futures[future]))
            print(f"{done} of {len(missing)}: {name}: {future.result()}{shown}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


def collect(iterations: int) -> pd.DataFrame:
    """One row per run of a number of iterations that has ended."""
    rows = []
    for path in (RUNS / str(iterations)).glob("*/*/*/summary.json"):
        problem, weights, seed = path.relative_to(RUNS / str(iterations)).parts[:3]
        summary = summary_of((problem, weights, int(seed)), iterations)
        if summary is None or problem not in PROBLEMS or weights not in WEIGHTS:
            continue
        error, seconds = summary.get("rel_l2", {}), summary.get("seconds", {})
        failure = "" if summary["status"] == "completed" else f": {summary['message']}"
        rows.append({
            "problem": problem,
            "weights": weights,
            "seed": int(seed),
            "steps": summary.get("step"),
            ERROR: error.get("final"),
            "best_rel_l2": error.get("best"),
            "seconds_training": seconds.get("training"),
            "seconds_weight_updates": seconds.get("weight_updates"),
            "status": summary["status"] + failure,
        })  # fmt: skip
    if not rows:
        raise SystemExit(f"no runs of {iterations} iterations in {RUNS}")
    table = pd.DataFrame(rows).astype({"steps": "Int64"})
    order = {"problem": PROBLEMS, "weights": WEIGHTS}
    return table.sort_values(
        ["problem", "weights", "seed"], key=lambda c: c.map(order[str(c.name)].index) if c.name in order else c
    )


def errors_of(table: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Final errors by problem and weights, one per seed, nan where a run did not complete."""
    errors = table[ERROR].where(table["status"] == "completed")
    groups = errors.groupby([table["problem"], table["weights"]], sort=False)
    return {(str(p), str(w)): values.to_numpy(dtype=float) for (p, w), values in groups}


def spread(values: np.ndarray, geometric: bool) -> tuple[float, str]:
    """A mean, infinite where a run did not complete, and how it is shown with its spread over the seeds.

    Args:
        values: errors, one per seed.
        geometric: geometric mean, and the factor of one standard deviation of the logarithms.
    """
    failures = int(np.isnan(values).sum())
    if failures:
        return np.inf, f"{failures} of {len(values)} failed"
    numbers = np.log(values) if geometric else values
    mean = np.exp(numbers.mean()) if geometric else numbers.mean()
    if len(numbers) == 1:
        return mean, short(mean)
    deviation = numbers.std(ddof=1)
    return mean, f"{short(mean)} ({np.exp(deviation):.2f})" if geometric else f"{short(mean)} ± {short(deviation)}"


def short(number: float) -> str:
    """Two digits, as 0.12 or 3.4e-3."""
    if number >= 0.01 or number == 0 or np.isnan(number):
        return f"{number:#.2g}".removesuffix(".")
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def error_table(table: pd.DataFrame, geometric: bool) -> list[str]:
    """Problems by weightings. Bold: the least mean. Italic: a range of seeds that overlaps that of the least."""
    errors = errors_of(table)
    columns = [w for w in WEIGHTS if w in set(table["weights"])]
    lines = ["| problem | " + " | ".join(f"`{w}`" for w in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for problem in (p for p in PROBLEMS if p in set(table["problem"])):
        own = {w: errors[problem, w] for w in columns if (problem, w) in errors}
        shown = {w: spread(values, geometric) for w, values in own.items()}
        best = min(shown, key=lambda w: shown[w][0])
        cells = []
        for w in columns:
            text = shown[w][1] if w in shown else ""
            known = w in own and shown[w][0] < np.inf
            close = known and own[w].min() <= own[best].max()
            cells.append(f"**{text}**" if known and w == best else f"*{text}*" if close else text)
        lines.append(f"| `{problem}` | " + " | ".join(cells) + " |")
    return lines


def cost_table(table: pd.DataFrame) -> list[str]:
    """What the updates of the weights cost."""
    share = 100 * table["seconds_weight_updates"] / table["seconds_training"]
    lines = ["| weights | median | least | largest |", "|---|---:|---:|---:|"]
    for weights in WEIGHTS:
        own = share[(table["weights"] == weights) & (table["status"] == "completed")]
        if len(own):
            lines.append(f"| `{weights}` | {own.median():.2g} | {own.min():.2g} | {own.max():.2g} |")
    return lines


def markdown(table: pd.DataFrame) -> str:
    """All tables for people."""
    counts = table.groupby(["problem", "weights"]).size()
    seeds = " to ".join(map(str, sorted({counts.min(), counts.max()})))
    return "\n".join([
        f"Final relative L2 error, mean ± standard deviation over {seeds} seeds:",
        "",
        *error_table(table, geometric=False),
        "",
        f"The same runs, geometric mean over {seeds} seeds (in brackets the geometric standard deviation, a factor):",
        "",
        *error_table(table, geometric=True),
        "",
        "Bold: the least mean of the problem. Italic: the best seed is no worse than the worst seed of the one in",
        "bold, so that these seeds do not settle the order of the two.",
        "",
        "Seconds of the weight updates in per cent of the other seconds of training, over the runs of all problems:",
        "",
        *cost_table(table),
        "",
    ])  # fmt: skip


def write_markdown(path: Path, tables: str) -> None:
    """Put the tables between the markers of a file, or write a file of nothing else."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}", encoding="utf-8")


def plot(table: pd.DataFrame, path: Path) -> None:
    """One panel per problem: a row of dots per weighting, one dot per seed, and a bar at their geometric mean."""
    errors = errors_of(table)
    problems = [p for p in PROBLEMS if p in set(table["problem"])]
    columns = min(4, len(problems))
    rows = -(-len(problems) // columns)
    plt.rcParams.update({"font.size": 10, "grid.alpha": 0.35, "axes.axisbelow": True})
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.1 * columns, 2.5 * rows + 0.6), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, problem in itertools.zip_longest(grid.flat, problems):
        if problem is None:
            axes.set_axis_off()
            continue
        for i, weights in enumerate(WEIGHTS):
            values = errors.get((problem, weights), np.array([]))
            known = values[~np.isnan(values)]
            if len(known) < len(values):
                text = f"{len(values) - len(known)} of {len(values)} failed"
                axes.text(0.98, i, text, ha="right", va="center", fontsize=8, transform=axes.get_yaxis_transform())
            if len(known):
                mean = np.exp(np.log(known).mean())
                axes.plot([mean, mean], [i - 0.36, i + 0.36], color=COLOURS[weights], linewidth=2)
                axes.plot(known, np.full(len(known), i), "o", color=COLOURS[weights], markersize=6, alpha=0.7, mew=0)
        axes.set(title=problem, xscale="log", ylim=(len(WEIGHTS) - 0.5, -0.5))
        widen(axes)
        axes.axvline(1, color="0.4", linestyle=":", linewidth=1.2)
        axes.grid(axis="x", which="both")
        axes.set_yticks(range(len(WEIGHTS)), WEIGHTS)
        axes.tick_params(axis="y", length=0)
    iterations, seeds = int(table["steps"].max()), table["seed"].nunique()
    figure.suptitle(f"Final error after {iterations:,} steps by weighting of the loss terms")
    figure.supxlabel(
        f"relative L2 error (no unit, log scale; ranges differ between panels)\n"
        f"dots: {seeds} seeds; bars: their geometric mean; dotted line: error 1, that of the zero function",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def widen(axes: Axes, decades: float = 1.2) -> None:
    """Make a logarithmic axis span at least so many decades, and label it sparsely, in plain numbers."""
    low, high = np.log10(axes.get_xlim())
    more = max(0.0, decades - (high - low)) / 2
    axes.set_xlim(10 ** (low - more), 10 ** (high + more))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if high - low + 2 * more < 2 else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def main() -> None:
    """Train what is missing, then collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--iterations", type=int, default=1500, help="optimiser steps of every run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS)
    parser.add_argument("--collect", action="store_true", help="train nothing; tables and figure from what is there")
    arguments = parser.parse_args()
    if not arguments.collect:
        grid = itertools.product(arguments.seeds, arguments.problems, arguments.weights)
        train_all([(problem, weights, seed) for seed, problem, weights in grid], arguments.iterations, arguments.jobs)
    table = collect(arguments.iterations)
    OUT.mkdir(parents=True, exist_ok=True)
    table.to_csv(OUT / "weightings.csv", index=False, float_format="%.6g")
    write_markdown(OUT / "weightings.md", markdown(table))
    plot(table, OUT / "weightings.png")
    print(markdown(table))


if __name__ == "__main__":
    main()
