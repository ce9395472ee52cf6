"""Seconds of one update of the weights, by every route and by sketches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as Drawing

from ntkrun.config.assembly import assemble
from ntkrun.config.configuration import read_configuration
from ntkrun.ntk.sketch import Sketch
from ntkrun.objective import Objective
from ntkrun.runtime.allocator import keep_freed_memory
from reproduction import base
from reproduction.base import Budget, Figure, Job, Line, Verdict, fit, grouped, style

WIDTHS = {"quick": (16, 32, 64, 128, 256), "full": (16, 32, 64, 128, 256, 512)}
POINTS = {"quick": (50, 100, 200, 400, 800, 1600), "full": (50, 100, 200, 400, 800, 1600, 3200, 6400)}
SKETCHES = {"quick": (4, 16, 64), "full": (1, 4, 16, 64, 256)}
SECONDS = {"quick": 0.2, "full": 0.5}  # per measurement
ROUNDS = 5, 50  # least and most
DENSE_BYTES = 2**28  # of one tensor of the reverse pass over all rows at once; larger cases are left out
PER_POINT_ROWS = 1600
STYLES = {
    "exact, dense": (base.BLACK, "s-"),
    "exact, per point": (base.BLUE, "^-"),
    "exact, structured": (base.RED, "o-"),
    "sketched, systematic": (base.GREEN, "v--"),
    "sketched, parameter, products": (base.ORANGE, "D--"),
    "sketched, parameter, differences": (base.PINK, "P--"),
    "gradient of the loss": (base.GREY, ":"),
}
DEFAULT = 64  # points per term of the systematic sketch
PROBES = 16  # of the others


def jobs(budget: Budget) -> list[Job]:
    """One per case: widths, points, and sketch sizes."""

    def job(axis: str, value: int, width: int, points: int, sizes: tuple[int, ...]) -> Job:
        share = points // 5
        counts = f"{{residual: {points}, boundary: {share}, initial: {share}, initial_velocity: {share}}}"
        return Job(
            f"{axis}-{value}",
            (f"network.width={width}", f"pde.points={counts}"),
            {"axis": axis, "width": width, "points": points},
            {"seconds": SECONDS[budget], "sizes": sizes},
        )

    return [
        *(job("width", width, width, 100, ()) for width in WIDTHS[budget]),
        *(job("points", points, 64, points, ()) for points in POINTS[budget]),
        job("size", 0, 64, 1600, SKETCHES[budget]),
    ]


def calls(
    objective: Objective, arguments: Mapping[str, Any], values: dict[str, Any]
) -> dict[tuple[str, int], Callable[[], object]]:
    """What is timed, by method and sketch size (0 for exact ones)."""
    parts = assemble(read_configuration(values))
    batch = parts.points.at(0)
    rows, width = max(objective.row_counts(batch)), values["network"]["width"]
    found: dict[tuple[str, int], Callable[[], object]] = {}
    weights = torch.ones(len(objective.terms))
    found["gradient of the loss", 0] = lambda: objective.gradient(batch, weights)
    routes = {"dense": rows**2 * 5 * width * 4 <= DENSE_BYTES, "per_point": rows <= PER_POINT_ROWS, "structured": True}
    for route, affordable in routes.items():
        if affordable:
            own = assemble(read_configuration(values | {"kernel": values["kernel"] | {"route": route}})).objective
            found[f"exact, {route.replace('_', ' ')}", 0] = lambda own=own: own.traces(batch)  # type: ignore[misc]
    sketches = {
        "sketched, systematic": Sketch(DEFAULT, "residual", "autodiff", "systematic"),
        "sketched, parameter, products": Sketch(PROBES, "parameter", "autodiff", "gaussian"),
        "sketched, parameter, differences": Sketch(PROBES, "parameter", "finite_difference", "gaussian"),
    }
    generator = torch.Generator().manual_seed(0)
    for name, sketch in sketches.items():
        for size in arguments["sizes"] or (sketch.size,):
            own_sketch = replace(sketch, size=size)
            found[name, size] = lambda s=own_sketch: s.estimate(objective, batch, generator)  # type: ignore[misc]
    return found


def work(values: dict[str, Any], directory: Path, arguments: Mapping[str, Any]) -> pd.DataFrame:
    """The least and the median processor seconds of a call, the calls of a round in turn."""
    keep_freed_memory()
    objective = assemble(read_configuration(values)).objective
    timed = calls(objective, arguments, values)
    seconds: dict[tuple[str, int], list[float]] = {key: [] for key in timed}
    for call in timed.values():
        call()
    while True:
        due = [
            key
            for key, past in seconds.items()
            if len(past) < ROUNDS[0] or (sum(past) < arguments["seconds"] and len(past) < ROUNDS[1])
        ]
        if not due:
            break
        for key in due:
            start = time.process_time()
            timed[key]()
            seconds[key].append(time.process_time() - start)
    rows = []
    for (method, size), past in seconds.items():
        least, median = np.quantile(past, (0, 0.5))
        rows.append(
            {
                "parameters": objective.layout.size,
                "method": method,
                "size": size,
                "seconds": least,
                "median": median,
                "rounds": len(past),
            }
        )
    return pd.DataFrame(rows)


def plot(table: pd.DataFrame) -> dict[str, Drawing]:
    """Seconds against width, points and sketch size."""
    style()
    figure, panels = plt.subplots(1, 3, figsize=(13, 4.9), sharey=True, layout="constrained")
    labels = {
        "width": "width of 3 hidden layers (100 + 60 points)",
        "points": "points of the residual term (width 64)",
        "size": "sketch size s (width 64, 1,600 points)",
    }
    for axes, (axis, view) in zip(panels, grouped(table, "axis"), strict=True):
        for method, own in grouped(view, "method"):
            colour, line = STYLES[method]
            x, seconds = own[axis], own["seconds"]
            if axis == "size" and own["size"].max() == 0:
                axes.axhline(seconds.iloc[0], color=colour, linestyle=":" if line == ":" else "-", lw=1.5)
                continue
            bars = (0 * seconds, own["median"] - seconds)
            axes.errorbar(x, seconds, bars, fmt=line, color=colour, label=name_of(method))
        axes.set_xscale("log", base=4 if axis == "size" else 2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
        axes.set_xlabel(labels[axis])
    panels[0].set_ylabel("processor seconds per update of the weights")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3)
    figure.suptitle(
        "Cost of all traces of the wave problem on one core: exact ones by structure undercut most sketches"
    )
    return {"cost.png": figure}


def name_of(method: str) -> str:
    """The method with its sketch size on the first two axes."""
    if not method.startswith("sketched"):
        return method
    return f"{method}, s = {DEFAULT if 'systematic' in method else PROBES}"


def growth(table: pd.DataFrame, method: str, axis: str, least: int) -> Line:
    """Slope of log seconds against log of an axis, from a value on."""
    own = table[(table["axis"] == axis) & (table["method"] == method) & (table[axis] >= least)]
    return fit(np.log(own[axis]), np.log(own["seconds"]))


def ratios(table: pd.DataFrame, one: str, other: str) -> pd.Series:
    """Seconds of one method over those of another, in every case of width and points that has both."""
    cases = table[table["axis"] != "size"].pivot(index=["axis", "width", "points"], columns="method", values="seconds")
    found: pd.Series = (cases[one] / cases[other]).dropna()
    return found


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Which is cheaper, and how costs grow."""
    out = []
    per_point = ratios(table, "exact, per point", "sketched, systematic")
    dense = ratios(table, "exact, dense", "sketched, systematic")
    out.append(
        Verdict(
            f"a sketched update (systematic, s = {DEFAULT}) is cheaper than exact ones, dense or per point, everywhere",
            f"per point {per_point.min():.1f} to {per_point.max():.0f} times as much, dense {dense.min():.1f} to "
            f"{dense.max():.0f} times",
            bool(per_point.min() > 1 and dense.min() > 1),
        )
    )
    forward = ratios(table, "exact, per point", "sketched, parameter, differences")
    out.append(
        Verdict(
            f"so is the sketch by differences ({PROBES} probes, forward passes alone)",
            f"per point {forward.min():.2g} to {forward.max():.2g} times as much",
            bool(forward.min() > 1),
        )
    )
    structured = ratios(table, "sketched, systematic", "exact, structured")
    widest = structured.xs("points").index.get_level_values("points").max()
    last = structured[("points", 64, widest)]
    out.append(
        Verdict(
            f"the default sketch is cheaper than exact structured traces where there are many points ({widest:,})",
            f"{last:.3f} of the exact cost; {structured.min():.2f} to {structured.max():.2f} over all cases",
            bool(last < 1),
        )
    )
    for method, limit, claim in (
        ("sketched, systematic", 0.2, "does not grow with the points (slope below 0.2 from 400 points on)"),
        ("exact, structured", 1.1, "grows at most in proportion to the points (slope below 1.1 from 400 points on)"),
    ):
        line = growth(table, method, "points", 400)
        out.append(
            Verdict(
                f"the cost of {method.split(', ')[1]} traces {claim}",
                f"slope {line.slope:.2f} ± {line.error:.2f}",
                line.slope < limit,
            )
        )
    gradient = ratios(table, "exact, structured", "gradient of the loss")
    out.append(
        Verdict(
            "exact structured traces cost less than a gradient of the loss, everywhere",
            f"{gradient.min():.2f} to {gradient.max():.2f} gradients",
            bool(gradient.max() < 1),
        )
    )
    return out


ABOUT = """\
Claim (c), computing NTK weights efficiently by sketching. All traces of the wave problem, tanh network, float32, on
one thread: processor time, as the machine is shared; the least of many calls made in turn, bars up to the median.
*Dense* forms the Jacobian by reverse mode over all rows at once and is left out where that needs too much memory;
*per point* takes one reverse pass per row, batched by `vmap`; *structured* needs no Jacobian. *Products* are exact
Jacobian-vector products by structure, *differences* forward passes with the automatic step. *Systematic* puts the
points in order along its curve at every call, which a run does once for every draw of points. Exact structured traces
in the gradient's own pass (as the program takes them) cost less still than shown here, for that pass is made
anyway."""

FIGURE = Figure(
    "cost",
    "What an update of the weights costs",
    ABOUT,
    jobs,
    work,
    plot,
    verdicts,
    alone=True,
)
