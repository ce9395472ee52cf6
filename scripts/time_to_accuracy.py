"""CPU seconds until the relative L2 error is below 1e-2, 1e-3, ..., 1e-8, of ntkrun and of other programs.

Usage: python scripts/time_to_accuracy.py --python rivals/bin/python [--problems NAME ...] [--programs NAME ...]
                                          [--seeds S ...] [--limit SECONDS]
       python scripts/time_to_accuracy.py --collect

after

    python3 -m venv rivals && rivals/bin/pip install -c constraints.txt 'torch==2.13.0' '.[benchmark]'

Every program trains in float64 on one thread, in a process of its own, one after the other, until its time is up or it
stops by itself: ntkrun by default with exact NTK weights, with sketched and with none, and with Adam, SOAP and Adam
followed by L-BFGS for as long as the limit lets them; DeepXDE with its own defaults and tuned; PINA; and the
Levenberg-Marquardt of optimistix on a JAX network. Others get the network's size and at least the points of ntkrun
(scripts/accuracy/cases.py), and their error is computed at the nodes where ntkrun computes its own; what that takes is
not counted. Compilation is. Seconds are CPU seconds, so that a machine that does other things as well matters little;
those of ntkrun's tables are scaled by what the process took of both.

Writes docs/benchmarks/accuracy.csv (error against seconds, rows of other runs stay), accuracy.md (medians over seeds
of the seconds to each error, of training and with what the process takes besides, and how many times longer others
take than ntkrun's default) and accuracy.png. Programs that the given Python lacks are left out, in one line each.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import pandas as pd
from matplotlib import pyplot as plt
from whole_run import WholeRun, whole_run

SCRIPTS = Path(__file__).resolve().parent
OUT = SCRIPTS.parent / "docs" / "benchmarks"
FILE = OUT / "accuracy.csv"
ALIKE = {"allen_cahn": ["pde.kink=false"]}
"""What ntkrun is told so that its network has nothing that those of the others lack."""
PROBLEMS = ("poisson", "wave", "helmholtz", "klein_gordon", "burgers", "allen_cahn")
ACCURACIES = tuple(10.0**-k for k in range(2, 9))
OURS = "ntkrun"
FIRST_ORDER = 10_000_000  # steps; the limit ends them


@dataclass(frozen=True)
class Program:
    """What is measured.

    Attributes:
        overrides: of ntkrun's configuration, for its own variants.
        module: of ``accuracy``, for others.
        package: the distribution that it needs.
        options: of the module.
        colour: in the figure.
    """

    colour: str
    overrides: Sequence[str] = ()
    module: str = ""
    package: str = ""
    options: Sequence[str] = ()


PROGRAMS = {
    OURS: Program("#000000"),
    "ntkrun, weights=sketched": Program("#777777", ["weights=sketched"]),
    "ntkrun, weights=none": Program("#BBBBBB", ["weights=none"]),
    "ntkrun, Adam": Program("#0072B2", ["optimizer=adam"]),
    "ntkrun, SOAP": Program("#56B4E9", ["optimizer=soap"]),
    "ntkrun, Adam, L-BFGS": Program("#009E73", ["optimizer=adam_lbfgs", "dtype=float64"]),
    "DeepXDE": Program("#E69F00", module="with_deepxde", package="deepxde", options=["tuned=false"]),
    "DeepXDE, tuned": Program("#D55E00", module="with_deepxde", package="deepxde", options=["tuned=true"]),
    "PINA": Program("#CC79A7", module="with_pina", package="pina-mathlab"),
    "optimistix": Program("#F0E442", module="with_optimistix", package="optimistix"),
}


def measure(name: str, problem: str, seed: int, limit: float, python: str) -> pd.DataFrame:
    """Error against CPU seconds of training of one run, and its CPU seconds besides."""
    program = PROGRAMS[name]
    if not program.module:
        table, around = _ours(program, problem, seed, limit)
    else:
        command = [python, "-m", "accuracy.worker", program.module, problem, str(seed), str(limit), *program.options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPTS), "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=SCRIPTS.parent)
        if done.returncode:
            raise RuntimeError(f"{name}, {problem}: {done.stderr[-2000:]}")
        answer = json.loads(done.stdout.splitlines()[-1])
        table, around = pd.DataFrame(answer["curve"], columns=["seconds", "error"]), answer["around"]
    about = {"problem": problem, "program": name, "seed": seed}
    return table.assign(**about, around=around)[["problem", "program", "seed", "seconds", "error", "around"]]


def _ours(program: Program, problem: str, seed: int, limit: float) -> tuple[pd.DataFrame, float]:
    first_order = any(each.startswith("optimizer=") for each in program.overrides)
    if first_order:  # the limit in steps, from the seconds of a short run
        short = whole_run([*_overrides(program, problem, seed), "iterations=300", "log_every=300"])
        each = float(short.summary["seconds"]["training"]) / 300 * _ratio(short)
        steps = max(300, min(FIRST_ORDER, int(limit / each)))
        further = [f"iterations={steps}", f"log_every={max(1, steps // 100)}", f"evaluate_every={max(1, steps // 100)}"]
    else:
        further = ["log_every=2", "evaluate_every=2"]
    done = whole_run([*_overrides(program, problem, seed), *further])
    scale = _ratio(done)
    elsewhere = sum(done.summary["seconds"][phase] for phase in ("evaluation", "logging", "saving"))
    curve = done.errors
    spent = (
        elsewhere * curve["seconds"] / done.metrics["seconds"].iloc[-1]
    )  # looking, which others are not charged with
    return pd.DataFrame({"seconds": (curve["seconds"] - spent) * scale, "error": curve["error"]}), done.around * scale


def _overrides(program: Program, problem: str, seed: int) -> list[str]:
    common = [f"pde={problem}", f"seed={seed}", "threads=1", "plots=false", "progress=false"]
    return [*common, *ALIKE.get(problem, []), *program.overrides]


def _ratio(done: WholeRun) -> float:
    """CPU seconds per second of a run on one thread, which shares its core with other programs."""
    return done.cpu_seconds / done.seconds


def reached(table: pd.DataFrame, accuracy: float) -> float:
    """Seconds of training until the error of a run is below an accuracy; infinite where it never is."""
    below = table.loc[table["error"] <= accuracy, "seconds"]
    return float(below.min()) if len(below) else math.inf


def medians(table: pd.DataFrame) -> pd.DataFrame:
    """Median over seeds of the seconds to each accuracy: a row per problem and program."""
    rows = []
    for (problem, program), own in table.groupby(["problem", "program"]):
        runs = [run for _, run in own.groupby("seed")]
        middle = {a: pd.Series([reached(run, a) for run in runs]).median() for a in ACCURACIES}
        around = pd.Series([run["around"].iloc[0] for run in runs]).median()
        limit = pd.Series([run["seconds"].max() for run in runs]).median()
        least = pd.Series([run["error"].min() for run in runs]).median()
        about = {"problem": problem, "program": program, "seeds": len(runs), "around": around}
        rows.append({**about, "limit": limit, "least": least, **middle})
    return pd.DataFrame(rows)


def page(table: pd.DataFrame) -> str:
    """Seconds to each accuracy, in Markdown."""
    lines = [
        "# Time to accuracy",
        "",
        "CPU seconds of training on one thread until the relative L2 error is below an accuracy, medians over seeds; "
        "in brackets how many times as long as ntkrun's default takes. `around`: CPU seconds of the process before and "
        "after training, which come on top; `least`: the smallest error within the seconds of training named before "
        "it. `python scripts/time_to_accuracy.py`, which says how it measures.",
        "",
    ]
    middle = medians(table)
    for problem in [name for name in PROBLEMS if name in set(middle["problem"])]:
        own = middle[middle["problem"] == problem].set_index("program")
        heads = " | ".join(f"{a:.0e}" for a in ACCURACIES)
        lines += [f"| {problem} | seeds | {heads} | around | seconds | least |"]
        lines += ["|---|---:|" + "---:|" * (len(ACCURACIES) + 3)]
        for name in [name for name in PROGRAMS if name in own.index]:
            row = own.loc[name]
            cells = " | ".join(_cell(row[a], own.loc[OURS, a] if OURS in own.index else math.inf) for a in ACCURACIES)
            ends = f"{row['around']:.1f} | {row['limit']:.0f} | {row['least']:.1e}"
            lines.append(f"| {name} | {row['seeds']} | {cells} | {ends} |")
        lines.append("")
    return "\n".join(lines)


def _cell(seconds: float, ours: float) -> str:
    if math.isinf(seconds):
        return ""
    ratio = "" if math.isinf(ours) or seconds == ours or ours == 0 else f" ({seconds / ours:.1f})"
    return f"{seconds:.1f}{ratio}"


def plot(table: pd.DataFrame) -> None:
    """The smallest error so far against seconds, a panel per problem and a line per run."""
    names = [name for name in PROBLEMS if name in set(table["problem"])]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    size = (4.6 * columns, 3.6 * rows + 0.8)
    figure, panels = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_axis_off()
    for axes, problem in zip(panels.flat, names, strict=False):
        for (name, _), run in table[table["problem"] == problem].groupby(["program", "seed"]):
            colour = PROGRAMS[str(name)].colour
            axes.loglog(run["seconds"].clip(lower=0.1), run["error"].cummin(), color=colour, linewidth=1.3)
        axes.set(title=problem, xlabel="CPU seconds of training", ylabel="relative $L^2$ error")
        axes.grid(alpha=0.3)
    shown = [name for name in PROGRAMS if name in set(table["program"])]
    lines = [plt.Line2D([], [], color=PROGRAMS[name].colour, label=name) for name in shown]
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, frameon=False)
    figure.savefig(OUT / "accuracy.png", dpi=120)
    plt.close(figure)


def missing(names: Sequence[str], python: str) -> set[str]:
    """Programs whose package the given Python lacks."""
    out = set()
    for name in names:
        package = PROGRAMS[name].package
        code = f"import importlib.metadata as m; m.version({package!r})"
        if package and subprocess.run([python, "-c", code], capture_output=True).returncode:
            print(f"{name} is left out: {python} lacks {package}")
            out.add(name)
    return out


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=os.path.realpath("rivals/bin/python"), help="has the packages of others")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=PROBLEMS, metavar="NAME")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="S")
    parser.add_argument("--limit", type=float, default=300.0, help="CPU seconds of training")
    parser.add_argument("--collect", action="store_true", help="page and figure of the runs that there are")
    arguments = parser.parse_args()
    table = pd.read_csv(FILE) if FILE.exists() else pd.DataFrame()
    programs = [] if arguments.collect else arguments.programs
    programs = [name for name in programs if name not in missing(programs, arguments.python)]
    for seed in arguments.seeds:
        for problem in arguments.problems:
            for name in programs:
                new = measure(name, problem, seed, arguments.limit, arguments.python)
                print(f"{problem}, {name}, seed {seed}: {new['error'].min():.2e} within {new['seconds'].max():.0f} s")
                if len(table):
                    same = [table["problem"] == problem, table["program"] == name, table["seed"] == seed]
                    table = table[~(same[0] & same[1] & same[2])]
                table = pd.concat([table, new], ignore_index=True)
                table.to_csv(FILE, index=False, float_format="%.4g")
    if table.empty:
        sys.exit("there are no runs")
    (OUT / "accuracy.md").write_text(page(table), encoding="utf-8")
    plot(table)
    print(page(table))


if __name__ == "__main__":
    main()
