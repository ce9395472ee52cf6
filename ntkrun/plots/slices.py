"""Figures of solutions in time and in three and more dimensions, from the arrays of ``solution.npz``."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from numpy.typing import NDArray

from ntkrun.plots.labels import to_scale
from ntkrun.plots.saved import axes_of, of_a_shape

TIMES = 5  # curves over time
MOMENTS = 4  # heat maps over time
CELLS = 256  # the most along an axis of a heat map
TITLES = {"prediction": "Prediction", "exact": "Solution", "error": "Absolute error"}

Arrays = Mapping[str, NDArray[Any]]


def plot_slices(solution: Arrays) -> dict[str, Figure]:
    """What the heat map of a whole solution leaves out: curves at several times, or cuts through more dimensions.

    Args:
        solution: the arrays of ``solution.npz`` on a grid; of those with values at all nodes one is read at a time.

    Returns:
        By name of the file: ``profiles`` for one space dimension and time, ``slices`` for more of them, of each field
        where there are several; nothing for other dimensions.
    """
    coordinates = axes_of(solution)
    if len(coordinates) == 2 and "t" in coordinates:
        return {"profiles": _profiles(solution, next(c for c in coordinates if c != "t"))}
    if len(coordinates) < 3:
        return {}
    fields = [str(field) for field in solution["fields"]]
    names = ["slices"] if len(fields) == 1 else [f"slices_{field}" for field in fields]
    cuts = _moments(solution, coordinates) if "t" in coordinates else _planes(solution, coordinates)
    shown = [name for name in TITLES if name in solution]
    values = {name: [_cut(solution[name], coordinates, cut) for cut in cuts] for name in shown}
    return {
        name: _slices(solution, cuts, {kind: [part[..., i] for part in parts] for kind, parts in values.items()}, field)
        for i, (name, field) in enumerate(zip(names, fields, strict=True))
    }


def _profiles(solution: Arrays, space: str) -> Figure:
    """Curves over the space coordinate at several times, one panel per field."""
    fields, x, times = [str(field) for field in solution["fields"]], solution[f"axis_{space}"], solution["axis_t"]
    chosen = np.unique(np.linspace(0, len(times) - 1, TIMES).round().astype(int))
    time_first = next(name for name in solution if name.startswith("axis_")) == "axis_t"
    shown = {
        name: np.stack([solution[name][k] if time_first else solution[name][:, k] for k in chosen])
        for name in ("prediction", "exact")
        if name in solution
    }
    figure = Figure(figsize=(6.4 * len(fields), 4))
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(chosen)))
    for i, (axes, field) in enumerate(zip(figure.subplots(1, len(fields), squeeze=False)[0], fields, strict=True)):
        for j, k in enumerate(chosen):
            if "exact" in shown and np.isfinite(shown["exact"][j][:, i]).any():
                label = "solution" if j == 0 else None
                axes.plot(x, shown["exact"][j][:, i], color="0.75", linewidth=4, label=label)
            axes.plot(x, shown["prediction"][j][:, i], color=colours[j], label=f"$t = {times[k]:.3g}$")
        axes.set(xlabel=f"${space}$", ylabel=f"${field}$", title=f"Prediction ${field}$ over time")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


Cut = tuple[str, str, dict[str, int]]
"""The coordinates to the right and upwards, and the nodes of all others."""


def _moments(solution: Arrays, coordinates: Sequence[str]) -> list[Cut]:
    """The plane of the first two space coordinates, at several times, in the middle of the others."""
    right, up, *others = (c for c in coordinates if c != "t")
    middle = {c: len(solution[f"axis_{c}"]) // 2 for c in others}
    times = np.unique(np.linspace(0, len(solution["axis_t"]) - 1, MOMENTS).round().astype(int))
    return [(right, up, {**middle, "t": int(k)}) for k in times]


def _planes(solution: Arrays, coordinates: Sequence[str]) -> list[Cut]:
    """The planes of every two of the first three coordinates, in the middle of the others."""
    middle = {c: len(solution[f"axis_{c}"]) // 2 for c in coordinates}
    pairs = itertools.combinations(coordinates[:3], 2)
    return [(right, up, {c: k for c, k in middle.items() if c not in (right, up)}) for right, up in pairs]


def _cut(values: NDArray[Any], coordinates: Sequence[str], cut: Cut) -> NDArray[Any]:
    """Values in a plane, ``[up, right, fields]``, at no more than ``CELLS`` nodes along either."""
    right, up, fixed = cut
    place = tuple(fixed[c] if c in fixed else _thinned(values.shape[k]) for k, c in enumerate(coordinates))
    plane = values[place]
    upright = coordinates.index(up) < coordinates.index(right)
    return (plane if upright else plane.swapaxes(0, 1)).copy()  # a view would keep all of the values


def _thinned(length: int) -> slice:
    return slice(None, None, -(-length // CELLS))


def _slices(solution: Arrays, cuts: Sequence[Cut], values: Mapping[str, Sequence[NDArray[Any]]], field: str) -> Figure:
    """A column per cut, a row each for prediction, solution and error of one field."""
    known = "exact" in values and any(np.isfinite(part).any() for part in values["exact"])
    rows = list(values) if known else ["prediction"]
    bounds = limits(values["exact" if known else "prediction"])
    figure = Figure(figsize=(1 + 2.9 * len(cuts), 0.4 + 2.7 * len(rows)))
    grid = figure.subplots(len(rows), len(cuts), squeeze=False)
    for line, name in zip(grid, rows, strict=True):
        parts = [np.abs(part) for part in values[name]] if name == "error" else values[name]
        low, high = (0.0, limits(parts)[1]) if name == "error" else bounds
        for axes, part, cut in zip(line, parts, cuts, strict=True):
            image = _heat_map(axes, solution, cut, part, low, high, "magma" if name == "error" else "RdBu_r")
            axes.set_title(", ".join(f"${c} = {solution[f'axis_{c}'][k]:.3g}$" for c, k in cut[2].items()), fontsize=9)
        formatter = ScalarFormatter()
        formatter.set_powerlimits((-2, 3))
        figure.colorbar(image, ax=list(line), format=formatter, label=f"{TITLES[name]} ${field}$")
    return figure


def limits(parts: Sequence[NDArray[Any]], margin: float = 0.0) -> tuple[float, float]:
    """The smallest and the largest finite value, or 0 and 1, and beyond them a part of what lies between."""
    finite = np.concatenate([part[np.isfinite(part)] for part in parts])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    room = margin * (high - low or 1.0)
    return low - room, high + room


def _heat_map(
    axes: Axes, solution: Arrays, cut: Cut, values: NDArray[Any], low: float, high: float, colours: str
) -> Any:
    right, up, _ = cut
    x, y = solution[f"axis_{right}"], solution[f"axis_{up}"]
    axes.grid(False)
    axes.set(xlabel=f"${right}$", ylabel=f"${up}$")
    image = axes.pcolormesh(
        x[_thinned(len(x))], y[_thinned(len(y))], values, cmap=colours, vmin=low, vmax=high, rasterized=True
    )
    if of_a_shape(values, right + up):
        to_scale(axes, x, y)
    return image
