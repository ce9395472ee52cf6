"""Curves and marks of a problem's runs as numbers, for the part of the page that answers to the pointer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.colors import to_hex

from ntkrun.report.aggregate import Group, Sweep
from ntkrun.report.canvas import COLOURS, SHADES
from ntkrun.report.figures import COST, ERROR, LOSS
from ntkrun.report.gather import Run, brief, unweighted_loss

POINTS = 150
"""Most points of a curve."""
CURVES = 400
"""Most runs whose curves are on the page; of more, the first ones."""
LONGEST = 80
"""Most characters of a name."""
DIGITS = 4


def chart_data(sweep: Sweep) -> Markup:
    """Groups with their colours, and charts, as JSON that may stand within a script element."""
    groups = [group for group in sweep.groups if group.runs]
    if not groups:
        return Markup("")
    quantity = ERROR if sweep.solved else LOSS
    charts = [
        {
            "title": "Loss against step or seconds",
            "axes": ["step", "seconds", LOSS],
            "curves": _curves(groups, unweighted_loss),
        },
        {"title": "Cost against accuracy", "axes": [COST, quantity], "curves": _marks(sweep, groups)},
    ]
    if sweep.solved:
        error = _curves(groups, lambda metrics: metrics["error/rel_l2"])
        charts.insert(
            0, {"title": "Error against step or seconds", "axes": ["step", "seconds", ERROR], "curves": error}
        )
    data = {
        "groups": [
            {"name": _name(sweep, group), "colour": colour}
            for group, colour in zip(groups, _colours(len(groups)), strict=True)
        ],
        "charts": charts,
    }
    plain = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Markup(plain.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e"))


def _name(sweep: Sweep, group: Group) -> str:
    return brief(sweep.choices(group), LONGEST) or "all runs"


def _colours(count: int) -> list[str]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return [to_hex(shade) for shade in matplotlib.colormaps["viridis"](np.linspace(0, SHADES, count))]


def _runs(groups: Sequence[Group]) -> list[tuple[int, Run]]:
    return [(number, run) for number, group in enumerate(groups) for run in group.runs][:CURVES]


def _curves(groups: Sequence[Group], quantity: Callable[[pd.DataFrame], pd.Series[float]]) -> list[dict[str, Any]]:
    """A quantity of every run against step and seconds, thinned out evenly; the last point is kept."""
    found = []
    for number, run in _runs(groups):
        values = quantity(run.metrics).replace([math.inf, -math.inf], math.nan).dropna()
        if values.empty:
            continue
        kept = values.iloc[np.unique(np.linspace(0, len(values) - 1, POINTS).round().astype(int))]
        columns = [_short(run.metrics.loc[kept.index, name]) for name in ("step", "seconds")]
        found.append({"group": number, "name": _run_name(run), "columns": [*columns, _short(kept)]})
    return found


def _marks(sweep: Sweep, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Cost and accuracy of every run."""
    return [
        {"group": number, "name": _run_name(run), "columns": [_short([run.seconds]), _short([measure])]}
        for number, run in _runs(groups)
        if run.seconds is not None and (measure := sweep.measure(run)) is not None
    ]


def _run_name(run: Run) -> str:
    seed = "" if run.seed is None else f", seed {run.seed}"
    return brief(run.directory.name + seed, LONGEST)


def _short(values: Any) -> list[float | None]:
    """Numbers of a few digits; null where one is not finite."""
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in map(float, values)]
