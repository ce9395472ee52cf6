"""What NTK weights, geodesic acceleration, corrections and redrawn points do for Gauss-Newton.

Usage: python scripts/ablation_gauss_newton.py [--problems NAME ...] [--variants NAME ...] [--seeds S ...]
                                               [--iterations N] [--collect]

Runs every variant of the default run of `wave` and `burgers` as a process of its own, one after the other; runs that
docs/benchmarks/ablation.csv has already are left out, so that a broken-off comparison goes on where it was. The table
holds every error that a run has computed: problem, variant, seed, step, seconds of training, error, and the CPU seconds
of the whole process. --collect only makes ablation.md (medians over seeds at thirds of the steps) and ablation.png.

--iterations shortens all runs; variants are compared after the same number of steps, whose costs differ little.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pandas as pd
from matplotlib import pyplot as plt
from whole_run import whole_run

OUT = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
FILE = OUT / "ablation.csv"
PROBLEMS = ("wave", "burgers")
DEFAULT = "default"
SAME = "weights=sketched"  # exact ones, too, where the rows of the Jacobian are at hand
VARIANTS = {
    DEFAULT: [],
    "weights=none": ["weights=none"],
    SAME: ["weights=sketched"],
    "no acceleration": ["optimizer.acceleration=0"],
    "no corrections": ["optimizer.corrections=0"],
    "neither": ["optimizer.acceleration=0", "optimizer.corrections=0"],
    "points kept": ["pde.sampling=sobol", "pde.resample_every=null"],
}
COLOURS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
RUN = ["problem", "variant", "seed", "iterations"]


def measure(problem: str, variant: str, seed: int, iterations: int | None) -> pd.DataFrame:
    """The errors of a run along its way."""
    length = [] if iterations is None else [f"iterations={iterations}"]
    done = whole_run([f"pde={problem}", f"seed={seed}", "plots=false", *length, *VARIANTS[variant]])
    about = {"problem": problem, "variant": variant, "seed": seed, "iterations": done.summary["iterations"]}
    return done.errors.assign(**about, cpu_seconds=done.cpu_seconds)[[*RUN, "step", "seconds", "error", "cpu_seconds"]]


def page(table: pd.DataFrame) -> str:
    """Medians over seeds at thirds of the steps, in Markdown."""
    lines = [
        "# Gauss-Newton without its parts",
        "",
        "Relative L2 error of runs with the defaults, but for what is named and for their length, after a third, two "
        "thirds and all of the steps, medians over seeds (the largest in brackets), and CPU seconds of the whole "
        "process; `python scripts/ablation_gauss_newton.py`, with `--iterations N` for N steps. A run that ended early "
        "counts with its last error. Sketched weights are exact ones here: the rows of the Jacobian are at hand.",
        "",
    ]
    for problem in [name for name in PROBLEMS if name in set(table["problem"])]:
        own = table[table["problem"] == problem]
        steps = int(own["iterations"].max())
        thirds = [steps // 3, 2 * steps // 3, steps]
        lines += [f"| {problem} | seeds | {' | '.join(f'{n} steps' for n in thirds)} | CPU seconds |"]
        lines += ["|---|---:|" + "---:|" * (len(thirds) + 1)]
        for variant in [name for name in VARIANTS if name in set(own["variant"])]:
            runs = [rows.sort_values("step") for _, rows in own[own["variant"] == variant].groupby("seed")]
            cells = []
            for n in thirds:
                errors = pd.Series([rows.loc[rows["step"] <= n, "error"].iloc[-1] for rows in runs])
                cells.append(f"{errors.median():.1e} ({errors.max():.1e})")
            cpu = pd.Series([rows["cpu_seconds"].iloc[0] for rows in runs]).median()
            lines.append(f"| {variant} | {len(runs)} | {' | '.join(cells)} | {cpu:.0f} |")
        lines.append("")
    return "\n".join(lines)


def plot(table: pd.DataFrame) -> None:
    """Error against step, a panel per problem and a line per run."""
    names = [name for name in PROBLEMS if name in set(table["problem"])]
    figure, panels = plt.subplots(1, len(names), figsize=(5.2 * len(names), 4), layout="constrained", squeeze=False)
    for axes, problem in zip(panels[0], names, strict=True):
        for (variant, _), rows in table[table["problem"] == problem].groupby(["variant", "seed"]):
            colour = COLOURS[list(VARIANTS).index(str(variant))]
            under = variant == SAME  # as the default, whose thin line is seen on top of it
            axes.semilogy(
                rows["step"],
                rows["error"],
                color=colour,
                linewidth=3 if under else 1,
                alpha=0.8,
                zorder=1 if under else 2,
            )
        axes.set(title=problem, xlabel="step", ylabel="relative $L^2$ error")
        axes.grid(alpha=0.3)
    shown = [name for name in VARIANTS if name in set(table["variant"])]
    lines = [plt.Line2D([], [], color=COLOURS[list(VARIANTS).index(name)], label=name) for name in shown]
    figure.legend(handles=lines, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(OUT / "ablation.png", dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure what is missing, then write page and figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS, metavar="NAME")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S")
    parser.add_argument("--iterations", type=int, help="length of all runs, instead of their own")
    parser.add_argument("--collect", action="store_true", help="page and figure of the runs that there are")
    arguments = parser.parse_args()
    table = pd.read_csv(FILE) if FILE.exists() else pd.DataFrame(columns=[*RUN, "step", "seconds", "error"])
    there = {tuple(row) for row in table[["problem", "variant", "seed"]].drop_duplicates().to_numpy()}
    for seed in [] if arguments.collect else arguments.seeds:
        for problem in arguments.problems:
            for variant in [name for name in arguments.variants if (problem, name, seed) not in there]:
                new = measure(problem, variant, seed, arguments.iterations)
                last = new.iloc[-1]
                print(
                    f"{problem}, {variant}, seed {seed}: error {last['error']:.2e} at step {last['step']}", flush=True
                )
                table = new if table.empty else pd.concat([table, new], ignore_index=True)
                table.to_csv(FILE, index=False, float_format="%.5g")
    if table.empty:
        sys.exit("there are no runs")
    (OUT / "ablation.md").write_text(page(table), encoding="utf-8")
    plot(table)
    print(page(table))


if __name__ == "__main__":
    main()
