"""A figure of the collocation points in use, coloured by the size of their residuals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ntkrun.plots.labels import Powers, logarithmic, to_scale, words

TERMS = 9  # the most that are drawn
POINTS = 20_000  # of a term; more could not be told apart


def plot_residuals(
    points: Mapping[str, NDArray[Any]],
    residuals: Mapping[str, NDArray[Any]],
    coordinates: Sequence[str],
    shape: bool = False,
) -> Figure:
    """One panel per loss term: over the only coordinate, or over the first and time, or the first two, as colours.

    Args:
        points: of every term, ``[N_i, d]`` or with further columns.
        residuals: their sizes |r|, ``[N_i]``.
        coordinates: letters of the columns of points.
        shape: whether the domain is one, whose lengths are drawn to scale.
    """
    terms = [name for name in points if name in residuals and len(points[name]) == len(residuals[name])][:TERMS]
    columns = min(3, len(terms))
    rows = math.ceil(len(terms) / columns)
    figure = Figure(figsize=(0.8 + 3.9 * columns, 0.3 + 3.1 * rows))
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=len(coordinates) > 1)
    for axes in grid.flat[len(terms) :]:
        axes.set_visible(False)
    right, up = _axes(coordinates)
    everywhere = np.concatenate([points[name][:, : len(coordinates)] for name in terms])
    for axes, name in zip(grid.flat, terms, strict=False):
        chosen = slice(None, None, -(-len(points[name]) // POINTS) or 1)
        x, sizes = points[name][chosen], np.asarray(residuals[name][chosen], dtype=np.float64)
        if len(coordinates) == 1:
            _draw_over_the_line(axes, x[:, 0], sizes)
        else:
            image = axes.scatter(
                x[:, right], x[:, up], c=sizes, norm=_norm(sizes), s=_area(len(x)), cmap="viridis", rasterized=True
            )
            figure.colorbar(image, ax=axes, format=Powers() if isinstance(image.norm, LogNorm) else None)
            axes.set(ylabel=f"${coordinates[up]}$")
            if shape and "t" not in (coordinates[right], coordinates[up]):
                to_scale(axes, everywhere[:, right], everywhere[:, up])
        axes.tick_params(labelbottom=True)
        axes.set(title=f"$|r|$ of {words(name)}", xlabel=f"${coordinates[right]}$")
    return figure


def _axes(coordinates: Sequence[str]) -> tuple[int, int]:
    """The columns to the right and upwards: time runs to the right."""
    if len(coordinates) == 2 and coordinates[1] == "t":
        return 1, 0
    return 0, min(1, len(coordinates) - 1)


def _draw_over_the_line(axes: Axes, x: NDArray[Any], sizes: NDArray[np.float64]) -> None:
    axes.plot(x, sizes, ".", markersize=3)
    logarithmic(axes, sizes)
    axes.set(ylabel="$|r|$")


def _norm(sizes: NDArray[np.float64]) -> Normalize:
    """A logarithmic scale over at most four orders of magnitude below the largest residual."""
    finite = sizes[np.isfinite(sizes) & (sizes > 0)]
    if not finite.size or finite.min() == finite.max():
        return Normalize()
    return LogNorm(max(finite.min(), 1e-4 * finite.max()), finite.max(), clip=True)


def _area(count: int) -> float:
    """Of a mark, in square points: many points get small ones."""
    return float(np.clip(6000 / max(count, 1), 1, 25))
