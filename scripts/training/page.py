"""From the table of turns to ratios, verdicts, page and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from training.cases import MAIN, POINTS, WEIGHED, WIDTHS

OUT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
OURS, FLOOR, NONE = "ntkrun", "matrix products", "weights=none"
OTHERS = ("JAX", "DeepXDE", "PINA")
COLOURS = {
    OURS: "#0072B2",
    "JAX": "#E69F00",
    "DeepXDE": "#009E73",
    "PINA": "#CC79A7",
    "torch, nested autograd": "#777777",
    "ntkrun, not compiled": "#56B4E9",
    FLOOR: "#000000",
}


@dataclass(frozen=True)
class Spread:
    """Median and quartiles over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: pd.Series) -> Spread:
        """Those of some numbers."""
        low, median, high = (float(values.quantile(q)) for q in (0.25, 0.5, 0.75))
        return cls(median, low, high)

    def rounded(self, digits: int) -> str:
        """In words, with so many digits."""
        return "{0:.{3}g} ({1:.{3}g} to {2:.{3}g})".format(self.median, self.low, self.high, digits)

    def __str__(self) -> str:
        return self.rounded(3)


def ratios(table: pd.DataFrame, case: str, part: str, to: str) -> dict[str, Spread]:
    """Seconds of every program over those of one, formed round by round."""
    own = table[(table["case"] == case) & (table["part"] == part)]
    wide = own.pivot(index="round", columns="program", values="seconds")
    if to not in wide:
        return {}
    return {str(name): Spread.of(wide[name] / wide[to]) for name in own["program"].unique()}


def seconds(table: pd.DataFrame, case: str, program: str) -> float | None:
    """Median seconds of a step."""
    own = table[(table["case"] == case) & (table["part"] == "rivals") & (table["program"] == program)]
    return float(own["seconds"].median()) if len(own) else None


def write_page() -> str:
    """Write page and figures from the table; returns the page."""
    table = pd.read_csv(OUT / "training.csv")
    style()
    plot_cases(table)
    plot_growth(table)
    page = "\n".join([*introduction(table), *rivals(table), *weightings(table), *growth(table), *goals(table)]) + "\n"
    (OUT / "training.md").write_text(page, encoding="utf-8")
    return page


def introduction(table: pd.DataFrame) -> list[str]:
    """Machine and versions."""
    newest = table.drop_duplicates("program", keep="last")
    known = {name: v for name, v in zip(newest["program"], newest["version"], strict=True) if name in (OURS, *OTHERS)}
    versions = ", ".join(f"{name} {version}" for name, version in known.items())
    torch = newest[newest["program"] == FLOOR]["version"].astype(str)
    machines = " and ".join(f"{m} ({t} threads)" for m, t in sorted({*zip(table["machine"], table["threads"])}))  # noqa: B905
    return [
        "# Seconds of a training step",
        "",
        f"`python scripts/benchmark_training.py`, float32, Adam, fixed points, on {machines}; {versions}, "
        f"torch {', '.join(torch)}. Medians and quartiles over rounds in which every program has its turn.",
        "",
    ]


def rivals(table: pd.DataFrame) -> list[str]:
    """The programs beside each other."""
    lines = [
        "| case (points) | program | ms per step | times ntkrun (quartiles) | of the rate of the matrix products |",
        "|---|---|---:|---:|---:|",
    ]
    for case in MAIN:
        to_ours, to_floor = (ratios(table, case.name, "rivals", to) for to in (OURS, FLOOR))
        for name, ratio in to_ours.items():
            rate = f"{100 / to_floor[name].median:.0f} %" if name in to_floor else ""
            milliseconds = 1e3 * (seconds(table, case.name, name) or math.nan)
            lines.append(f"| {case.name} ({case.points:,}) | {name} | {_rounded(milliseconds)} | {ratio} | {rate} |")
    return [*lines, ""]


def _rounded(number: float) -> str:
    """Three digits, without powers of ten."""
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


def weightings(table: pd.DataFrame) -> list[str]:
    """What weights, and new points, cost."""
    lines = ["| case | weights | times weights=none (quartiles) |", "|---|---|---:|"]
    for case in (*MAIN, *WEIGHED):
        found = ratios(table, case.name, "weightings", NONE)
        lines += [f"| {case.name} | {name} | {ratio.rounded(4)} |" for name, ratio in found.items() if name != NONE]
    return [*lines, ""] if len(lines) > 2 else []


@dataclass(frozen=True)
class Slope:
    """Of a straight line through logarithms, with a half-width at 95 %."""

    value: float
    half: float


# Student's t at 97.5 %, by degrees of freedom.
STUDENT = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}


def slope(x: Sequence[float], y: Sequence[float]) -> Slope:
    """The slope of log y in log x, from at least three pairs."""
    a, b = np.log(x), np.log(y)
    a = a - a.mean()
    value = float(a @ b / (a @ a))
    rest = b - b.mean() - value * a
    error = math.sqrt(float(rest @ rest) / (len(a) - 2) / float(a @ a))
    return Slope(value, STUDENT[len(a) - 2] * error)


def growth_in_points(table: pd.DataFrame, program: str, least: int) -> Slope | None:
    """How seconds grow with points, from ``least`` points on."""
    pairs = [(c.points, seconds(table, c.name, program)) for c in POINTS if c.counts["residual"] >= least]
    known = [(n, s) for n, s in pairs if s is not None]
    return slope(*zip(*known, strict=True)) if len(known) >= 3 else None  # type: ignore[arg-type]


def growth(table: pd.DataFrame) -> list[str]:
    """How seconds grow with the number of points."""
    lines = ["| program | slope of log seconds in log points, from 1,000 on (95 %) |", "|---|---:|"]
    for name in (OURS, *OTHERS, FLOOR):
        if found := growth_in_points(table, name, 1000):
            lines.append(f"| {name} | {found.value:.2f} ± {found.half:.2f} |")
    return [*lines, ""] if len(lines) > 2 else []


def goals(table: pd.DataFrame) -> list[str]:
    """Every goal with what was measured."""
    lines = ["| goal | measured | |", "|---|---|---|"]

    def add(goal: str, measured: str, met: bool) -> None:
        lines.append(f"| {goal} | {measured} | {'met' if met else '**missed**'} |")

    for case in MAIN:
        found, to_floor = (ratios(table, case.name, "rivals", to) for to in (OURS, FLOOR))
        for name, least in (("DeepXDE", 3.0), ("PINA", 3.0), ("JAX", 1.0)):
            if name in found:
                met, measured = found[name].median >= least, str(found[name])
                if not met and name in to_floor:
                    measured += f"; {to_floor[name].median:.3g} times the matrix products alone"
                add(f"{case.name}: {name} takes at least {least:g} times as long", measured, met)
    for case in [c for c in (*MAIN, *WIDTHS) if c.width >= 256]:
        found = ratios(table, case.name, "rivals", FLOOR)
        if OURS in found:
            rate = 1 / found[OURS].median
            add(f"{case.name}: half the rate of the matrix products", f"{100 * rate:.0f} %", rate >= 0.5)
    if line := growth_in_points(table, OURS, 1000):
        measured = f"{line.value:.2f} ± {line.half:.2f}"
        add(
            "seconds grow at most in proportion to the points (slope 1, from 1,000 on)",
            measured,
            line.value - line.half <= 1,
        )
    for case in (*MAIN, *WEIGHED):
        found = ratios(table, case.name, "weightings", NONE)
        often = 1.10 if case.width >= 128 else 1.25
        for name, most in (("exact, every step", often), ("exact, every 100", 1.005), ("sketched, every 100", 1.005)):
            if name in found:
                goal = f"{case.name}: {name} at most {most:g} times weights=none"
                add(goal, found[name].rounded(4), found[name].median <= most)
    return lines


def style() -> None:
    """The look of both figures."""
    plt.rcParams.update({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3, "legend.frameon": False})
    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True})


def plot_cases(table: pd.DataFrame) -> None:
    """Times of all programs as multiples of ntkrun's, one panel per case."""
    names = [case.name for case in MAIN if ratios(table, case.name, "rivals", OURS)]
    if not names:
        return
    figure, panels = plt.subplots(1, len(names), figsize=(3.1 * len(names), 2.9), squeeze=False, layout="constrained")
    for axes, case in zip(panels[0], names, strict=True):
        found = ratios(table, case, "rivals", OURS)
        order = [name for name in COLOURS if name in found][::-1]
        medians = [found[name].median for name in order]
        spread = [[found[n].median - found[n].low for n in order], [found[n].high - found[n].median for n in order]]
        axes.barh(order, medians, xerr=spread, color=[COLOURS[name] for name in order], height=0.7)
        for k, name in enumerate(order):
            axes.text(found[name].high, k, f" {found[name].median:.2g}", va="center", fontsize=8)
        axes.axvline(1, color="0.5", linewidth=0.8)
        axes.set(title=case, xlabel="time of a step, ntkrun = 1")
        axes.margins(x=0.15)
        axes.grid(axis="y", visible=False)
        if axes is not panels[0][0]:
            axes.tick_params(labelleft=False)
    figure.savefig(OUT / "training.png", dpi=110)
    plt.close(figure)


def plot_growth(table: pd.DataFrame) -> None:
    """Seconds against the number of points, and against the width."""
    figure, panels = plt.subplots(1, 2, figsize=(8.4, 3.8), sharey=True, layout="constrained")
    _curves(table, panels[0], [(case.points, case.name) for case in POINTS])
    panels[0].set(xlabel="points of all terms", ylabel="seconds of a step", title="wave 2-50x4-1")
    _curves(table, panels[1], [(case.width, case.name) for case in WIDTHS])
    panels[1].set(xlabel="width", title="wave, 3 layers, 1,600 points")
    widths = [case.width for case in WIDTHS]
    panels[1].set_xticks(widths, [str(width) for width in widths])
    panels[1].minorticks_off()
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.savefig(OUT / "training_growth.png", dpi=110)
    plt.close(figure)


def _curves(table: pd.DataFrame, axes: Axes, places: Sequence[tuple[int, str]]) -> None:
    axes.set(xscale="log", yscale="log")
    for name, colour in COLOURS.items():
        pairs = [(x, seconds(table, case, name)) for x, case in places]
        known = [(x, s) for x, s in pairs if s is not None]
        if known:
            line = "--" if name == FLOOR else "-"
            axes.plot(*zip(*known, strict=True), line, marker="o", markersize=4, color=colour, label=name)
