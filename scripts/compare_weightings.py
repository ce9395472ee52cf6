"""Final errors of all problems of the menu under different loss weights.

Usage: python scripts/compare_weightings.py [--jobs J] [--iterations N ...] [--seeds S ...]
                                            [--problems NAME ...] [--weights NAME ...] [--again]
                                            [--out DIRECTORY]
       python scripts/compare_weightings.py --collect [--iterations N ...] [--out DIRECTORY]
       python scripts/compare_weightings.py --tables-only [--out DIRECTORY]

Trains every problem under every weighting from every seed, for 1,500 and for 15,000 steps: Adam with its default
network and schedule, and the configuration's defaults in all else. Each run has a directory
outputs/comparison/N/PROBLEM/WEIGHTS/SEED; runs that have ended there, or have completed by weightings.csv, are
left out, so an interrupted comparison goes on where it was, on any machine (--again makes them anew). Runs are spread
over --jobs processes of one thread each, seed by seed.

Then collects all runs of N iterations that are there into docs/comparison: weightings.csv (one row per run, with the
commit that made it; rows of other runs are kept), the tables of weightings.md (between its two markers; the text around
them is kept), and weightings_N.png, for the least N weightings.png. A run that fails is a row with its status.

Errors are skewed, so tables give medians over the seeds. Whether weightings differ at all over the problems is asked by
the test of Friedman. Whether one differs from weights=exact is asked by the signed-rank test of Wilcoxon on logarithms
of ratios of errors, twice: of the medians of all problems, as a sample of problems, and of all pairs of runs of one
problem and seed, which speaks of these problems alone and can reject with few of them; the latter with the correction
of Holm. On a single problem, by the rank-sum test of Mann and Whitney between the seeds of two weightings, which can
reject at 5 % from four seeds on. A run that did not complete counts as worse than all that did.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Sequence, Set
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import torch
from hydra import compose, initialize_config_module
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy import stats

import ntkrun
import ntkrun.config  # registers what composing the menu needs

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
    "every_step": "#56B4E9",
    "every_100": "#999999",
    "sketched": "#E69F00",
    "fixed": "#0072B2",
    "gradient_norm": "#009E73",
    "relobralo": "#CC79A7",
}
WEIGHTS = tuple(COLOURS)
FIXED = 100  # of every term but the residual, under "fixed"
ERROR = "final_rel_l2"
LEVEL = 0.05  # of the tests
LEAST = 6  # pairs, with which a two-sided signed-rank test can reject at that level
WORST = 1e9  # stands for the error of a run that did not complete

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
    every = {"every_step": 1, "every_100": 100}.get(weights)
    common += [f"weights={weights}"] if every is None else ["weights=exact", f"weights.update_every={every}"]
    common += ["device=cpu", "progress=false", "plots=false", "keep_best=false"]
    points = compose("config", overrides=common[:1]).pde.points
    terms = [term for term in points if points[term] != "all"]  # no measured data
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


def train_all(runs: Sequence[Run], iterations: int, jobs: int, known: Set[Run]) -> None:
    """Carry out the runs that have not ended yet and are not ``known``, side by side."""
    missing = [run for run in runs if run not in known and summary_of(run, iterations) is None]
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
            "iterations": iterations,
            "steps": summary.get("step"),
            ERROR: error.get("final"),
            "best_rel_l2": error.get("best"),
            "seconds_training": seconds.get("training"),
            "seconds_weight_updates": seconds.get("weight_updates"),
            "status": summary["status"] + failure,
            "commit": str(summary.get("git_commit") or "")[:9],
        })  # fmt: skip
    return pd.DataFrame(rows)


def recorded(table: pd.DataFrame, iterations: int) -> set[Run]:
    """The runs of a length that a table has, and that completed."""
    if table.empty:
        return set()
    own = table[(table["iterations"] == iterations) & (table["status"] == "completed")]
    return set(zip(own["problem"], own["weights"], own["seed"].astype(int), strict=True))


def merged(older: pd.DataFrame, newer: pd.DataFrame) -> pd.DataFrame:
    """One row per run, the newer one of two, in the order of the page."""
    table = pd.concat([part for part in (older, newer) if len(part)])
    table = table.drop_duplicates(["iterations", "problem", "weights", "seed"], keep="last").astype({"steps": "Int64"})
    order = {"problem": PROBLEMS, "weights": WEIGHTS}
    return table.sort_values(
        ["iterations", "problem", "weights", "seed"],
        key=lambda c: c.map(order[str(c.name)].index) if c.name in order else c,
    )


def errors_of(table: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Final errors by problem and weights, one per seed, nan where a run did not complete."""
    errors = table[ERROR].where(table["status"] == "completed")
    groups = errors.groupby([table["problem"], table["weights"]], sort=False)
    return {(str(p), str(w)): values.to_numpy(dtype=float) for (p, w), values in groups}


def middle(values: np.ndarray) -> tuple[float, str]:
    """The median over the seeds, infinite where most runs did not complete, and how it is shown with its range."""
    ranked = np.sort(np.where(np.isnan(values), np.inf, values))
    median = float(np.median(ranked)) if np.isfinite(ranked).all() else float(ranked[len(ranked) // 2])
    failures = int(np.isinf(ranked).sum())
    if failures:
        known = f"{short(median)}, " if np.isfinite(median) else ""
        return median, f"{known}{failures} of {len(values)} failed"
    if len(values) == 1:
        return median, short(median)
    return median, f"{short(median)} ({short(ranked[0])} to {short(ranked[-1])})"


def short(number: float) -> str:
    """Two digits, as 0.12 or 3.4e-3."""
    if number >= 0.01 or number == 0 or np.isnan(number):
        return f"{number:#.2g}".removesuffix(".")
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def error_table(table: pd.DataFrame) -> list[str]:
    """Problems by weightings. Bold: the least median. Italic: seeds that a test cannot tell from those of the least.

    There are no italics where the seeds are too few for the test to tell any from any.
    """
    errors = errors_of(table)
    columns = [w for w in WEIGHTS if w in set(table["weights"])]
    lines = ["| problem | " + " | ".join(f"`{w}`" for w in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    seeds = table["seed"].nunique()
    for problem in (p for p in PROBLEMS if p in set(table["problem"])):
        own = {w: errors[problem, w] for w in columns if (problem, w) in errors}
        shown = {w: middle(values) for w, values in own.items()}
        best = min(shown, key=lambda w: shown[w][0])
        cells = []
        for w in columns:
            text = shown[w][1] if w in shown else ""
            known = w in own and shown[w][0] < np.inf
            close = known and can_reject(own[w], own[best]) and differ_by_chance(own[w], own[best]) >= LEVEL
            if w in own and len(own[w]) < seeds:
                text += f", {len(own[w])} seed{'s' * (len(own[w]) > 1)}"
            cells.append(f"**{text}**" if known and w == best else f"*{text}*" if close else text)
        lines.append(f"| `{problem}` | " + " | ".join(cells) + " |")
    return lines


def can_reject(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the seeds are so many that a complete separation of them is no chance."""
    return 2 / math.comb(len(one) + len(other), len(one)) < LEVEL


def differ_by_chance(one: np.ndarray, other: np.ndarray) -> float:
    """The probability that seeds of equal distributions differ as much in rank, by Mann and Whitney, two-sided."""
    a, b = (np.where(np.isnan(values), np.inf, values) for values in (one, other))
    method = "exact" if len(np.unique([*a, *b])) == len(a) + len(b) else "asymptotic"
    return float(stats.mannwhitneyu(a, b, method=method).pvalue)


def rank_table(table: pd.DataFrame) -> list[str]:
    """The tests over all problems and over all runs, where there is more than one term."""
    own = table[table["problem"] != "regression"]
    completed = own["status"] == "completed"
    own = own.assign(**{ERROR: np.log(own[ERROR].where(completed, np.inf).clip(upper=WORST))})
    runs = own.pivot(index=["problem", "seed"], columns="weights", values=ERROR)
    columns = [w for w in WEIGHTS if w in runs]
    whole = own.groupby(["problem", "weights"])[ERROR].median().unstack()[columns].dropna()
    lines = []
    if len(columns) > 2 and len(whole) > 2:
        ranks = whole.rank(axis=1).mean()
        chance = float(stats.friedmanchisquare(*whole.to_numpy().T).pvalue)
        verdict = "they differ" if chance < LEVEL else "no difference is shown"
        lines += [
            f"Medians of all weightings over the {len(whole)} problems that each was run on, test of Friedman: "
            f"p = {chance:.2g},",
            f"{verdict} at {100 * LEVEL:.0f} %; mean ranks (1 is the least error): "
            + ", ".join(f"`{w}` {ranks[w]:.1f}" for w in sorted(columns, key=lambda w: float(ranks[w])))
            + ".",
            "",
        ]
    if "exact" not in columns:
        return lines
    found = [against(runs[["exact", w]].dropna(), w) for w in columns if w != "exact"]
    found = [row for row in found if row]
    lines += [
        "Each against `exact`, on the same problems from the same seeds (without `regression`, which has one term):",
        "",
        "| weights | problems | runs | error / that of `exact` | p over problems | p over runs | corrected (Holm) | |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    largest = 0.0
    corrected = {}
    for k, row in enumerate(sorted(found, key=lambda row: row.chance)):
        largest = max(largest, min(1.0, (len(found) - k) * row.chance))
        corrected[row.weights] = largest
    for row in found:
        over_problems = "" if np.isnan(row.chance_of_problems) else f"{row.chance_of_problems:.2g}"
        verdict = ("worse" if row.ratio > 1 else "better") if corrected[row.weights] < LEVEL else ""
        lines.append(
            f"| `{row.weights}` | {row.problems} | {row.runs} | {row.ratio:.2f} | {over_problems} | "
            f"{row.chance:.2g} | {corrected[row.weights]:.2g} | {verdict} |"
        )
    return lines


class Comparison(NamedTuple):
    """One weighting against ``exact``.

    Attributes:
        weights: its name.
        problems: on which both were run.
        runs: pairs of runs of one problem and seed.
        ratio: of the errors; the median over problems of the medians over seeds.
        chance_of_problems: p of the signed-rank test on these medians, two-sided; nan for fewer than six problems, with
            which it cannot reject at 5 %.
        chance: p of the signed-rank test on all pairs.
    """

    weights: str
    problems: int
    runs: int
    ratio: float
    chance_of_problems: float
    chance: float


def against(pairs: pd.DataFrame, weights: str) -> Comparison | None:
    """The comparison on pairs of logarithms of errors, with the columns ``exact`` and that of ``weights``."""
    logs = pairs[weights] - pairs["exact"]
    if not len(logs):
        return None
    medians = logs.groupby("problem").median()
    chance = [float(stats.wilcoxon(each).pvalue) if each.any() else 1.0 for each in (medians, logs)]
    return Comparison(
        weights,
        len(medians),
        len(logs),
        float(np.exp(medians.median())),
        chance[0] if len(medians) >= LEAST else np.nan,
        chance[1],
    )


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
    lines: list[str] = []
    for iterations, own in table.groupby("iterations"):
        seeds = own["seed"].nunique()
        lines += [
            f"### {iterations:,} steps",
            "",
            f"Final relative L2 error, median (least to largest) over {seeds} seeds where no fewer are named:",
            "",
            *error_table(own),
            "",
            "Bold: the least median of the problem. Italic: seeds that a rank-sum test (Mann, Whitney, two-sided, 5 %)",
            "cannot tell from those of the one in bold; none where they are too few for it to tell. Empty: not run.",
            "",
            *rank_table(own),
            "",
            "Seconds of the weight updates in per cent of the other seconds of training, over all runs:",
            "",
            *cost_table(own),
            "",
        ]
        if iterations != table["iterations"].min():
            lines += [f"![Final errors after {iterations:,} steps]({figure_of(table, iterations)})", ""]
    return "\n".join(lines)


def figure_of(table: pd.DataFrame, iterations: int) -> str:
    """The file of the figure of runs of a length."""
    return "weightings.png" if iterations == table["iterations"].min() else f"weightings_{iterations}.png"


def write_markdown(path: Path, tables: str) -> None:
    """Put the tables between the markers of a file, or write a file of nothing else."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n\n{tables}\n{END}{after}", encoding="utf-8")


def plot(table: pd.DataFrame, path: Path) -> None:
    """One panel per problem: a row of dots per weighting, one dot per seed, and a bar at their median."""
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
                median = np.median(known)
                axes.plot([median, median], [i - 0.36, i + 0.36], color=COLOURS[weights], linewidth=2)
                axes.plot(known, np.full(len(known), i), "o", color=COLOURS[weights], markersize=6, alpha=0.7, mew=0)
        axes.set(title=problem, xscale="log", ylim=(len(WEIGHTS) - 0.5, -0.5))
        widen(axes)
        axes.axvline(1, color="0.4", linestyle=":", linewidth=1.2)
        axes.grid(axis="x", which="both")
        axes.set_yticks(range(len(WEIGHTS)), WEIGHTS)
        axes.tick_params(axis="y", length=0)
    iterations, seeds = int(table["iterations"].max()), table["seed"].nunique()
    figure.suptitle(f"Final error after {iterations:,} steps by weighting of the loss terms")
    figure.supxlabel(
        f"relative L2 error (no unit, log scale; ranges differ between panels)\n"
        f"dots: up to {seeds} seeds; bars: their median; dotted line: error 1, that of the zero function",
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
    parser.add_argument("--iterations", type=int, nargs="+", default=[1500, 15000], help="optimiser steps of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS)
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS)
    parser.add_argument("--again", action="store_true", help="make runs anew that are there")
    parser.add_argument("--collect", action="store_true", help="train nothing; tables and figures from what is there")
    parser.add_argument("--tables-only", action="store_true", help="tables and figures from weightings.csv alone")
    parser.add_argument("--out", type=Path, default=OUT, help="where tables and figures go (docs/comparison)")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    path = out / "weightings.csv"
    if not arguments.tables_only:
        for iterations in sorted(arguments.iterations):
            table = pd.read_csv(path) if path.exists() else pd.DataFrame()
            grid = itertools.product(arguments.seeds, arguments.problems, arguments.weights)
            runs = [(problem, weights, seed) for seed, problem, weights in grid]
            if not arguments.collect:
                for run in runs if arguments.again else ():
                    shutil.rmtree(directory_of(run, iterations), ignore_errors=True)
                train_all(runs, iterations, arguments.jobs, set() if arguments.again else recorded(table, iterations))
            newer = collect(iterations)
            if table.empty and newer.empty:
                raise SystemExit(f"no runs of {iterations} iterations in {RUNS}")
            table = merged(table, newer)
            table.to_csv(path, index=False, float_format="%.6g")
    table = pd.read_csv(path)
    write_markdown(out / "weightings.md", markdown(table))
    for iterations, own in table.groupby("iterations"):
        plot(own, out / figure_of(table, int(iterations)))
    print(markdown(table))


if __name__ == "__main__":
    main()
