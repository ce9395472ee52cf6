"""Panels, colours and legends of the figures over several runs."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from ntkrun.common.errors import one_line
from ntkrun.report.aggregate import spread, text
from ntkrun.report.arrange import Arrangement, Crossing
from ntkrun.report.gather import brief

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C564B")
MARKERS = "osD^vPX*"
LABELLED_TICKS = 10
LONGEST = 40
SHADES = 0.82
"""How far along the colour map numbers go; beyond, it is too light to be seen on white."""


class Styles:
    """A colour and a marker for every label of an arrangement.

    Args:
        arrangement: shades of one colour map stand for numbers, distinct colours for anything else.
    """

    def __init__(self, arrangement: Arrangement) -> None:
        labels = arrangement.labels
        colours: list[Any] = list(COLOURS[: len(labels)])
        if arrangement.numbers and len(labels) > 2:
            colours = [tuple(shade) for shade in matplotlib.colormaps["viridis"](np.linspace(0, SHADES, len(labels)))]
        self.labels = labels
        self.dashed: set[str] = set()
        self._title = arrangement.legend
        self._colours = dict(zip(labels, colours, strict=True))
        self._markers = dict(zip(labels, MARKERS, strict=False))

    def colour(self, label: str) -> Any:
        """The colour of a label."""
        return self._colours[label]

    def mark(self, label: str) -> dict[str, Any]:
        """Keywords of a line with markers."""
        return {"color": self._colours[label], "marker": self._markers[label], "markersize": 6}

    def legend(self, figure: Figure, marks: bool = False) -> None:
        """Add a legend to the right of all panels, where labels say anything; with ``marks`` instead of lines."""
        if not self._title:
            return
        handles = []
        for label in self.labels:
            style = self.mark(label) if marks else {"color": self._colours[label]}
            style["linestyle"] = "none" if marks else "--" if label in self.dashed else "-"
            handles.append(Line2D([], [], **style, label=shown(label)))
        title = ",\n".join(shown(key) for key in self._title.split(", "))
        figure.legend(handles=handles, title=title, alignment="left", loc="outside right center")


def shown(words: str) -> str:
    """User's words as matplotlib shall print them: not too long, without what has no shape, and never as a formula."""
    return brief(one_line(words), LONGEST).replace("$", r"\$")


def panels(arrangement: Arrangement) -> tuple[Figure, list[Axes]]:
    """A figure with a titled panel for each of the arrangement's, up to three in a row, on common axes."""
    count = len(arrangement.panels)
    columns = min(count, 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(7.6, 4.2) if count == 1 else (2 + 3.4 * columns, 0.8 + 3 * rows))
    grid = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    for axes, (title, _) in zip(grid, arrangement.panels, strict=False):
        axes.set(title=shown(title))
        axes.tick_params(labelbottom=True)
    return figure, grid[:count]


def set_axis(axes: Axes, crossing: Crossing) -> None:
    """The axis of what was swept: numbers at their places, logarithmic where they span a decade; else categories."""
    axes.set(xlabel=shown(crossing.key))
    if not crossing.numbers:
        names = [shown(text(value)) for value in crossing.axis]
        slant: dict[str, Any] = {"rotation": 30, "ha": "right"} if sum(map(len, names)) > 40 else {}
        axes.set_xticks(range(len(names)), names, **slant)
        axes.set_xlim(-0.5, len(names) - 0.5)
        return
    values = [float(value) for value in crossing.axis if value is not None]
    logarithmic = spread(values)
    if logarithmic:
        axes.set_xscale("log")
    if len(values) <= LABELLED_TICKS and (logarithmic or _even(values)):
        axes.xaxis.set_major_locator(FixedLocator(values))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.4g}")


def _even(values: list[float]) -> bool:
    """Whether ticks at all values leave room for their labels."""
    gaps = np.diff(values)
    return len(values) < 2 or bool(gaps.min() > 0.08 * (values[-1] - values[0]))
