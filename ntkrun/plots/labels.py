"""Labels of figures: names that users have given, and what is drawn along them."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatterSciNotation
from numpy.typing import NDArray

SLIM = 8  # of what is longer, lengths are not drawn to scale
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Powers(LogFormatterSciNotation):
    """Labels of logarithmic axes as plain text, which takes a tenth of the time of matplotlib's formulae."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Such as 10⁻³."""
        text: str = super().__call__(x, pos)
        found = re.fullmatch(r"\$\\mathdefault{(?:(.+)\\times)?10\^{(.+)}}\$", text)
        if found is None:
            return text
        factor, power = found.groups()
        return f"{factor}\u00d7" * bool(factor) + f"10{power.translate(RAISED)}"


def logarithmic(axes: Axes, values: NDArray[np.float64]) -> None:
    """A logarithmic axis where the positive values span more than a factor of 10."""
    values = np.asarray(values, dtype=np.float64)  # an empty column of a table has no type
    positive = values[np.isfinite(values) & (values > 0)]
    if positive.size and positive.max() > 10 * positive.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(Powers())
        axes.yaxis.set_minor_formatter(Powers())


def to_scale(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """Lengths along both axes alike, so that a disc is round, unless the picture would be slim.

    Args:
        axes: with the picture.
        x: coordinates to the right of everything in it.
        y: upwards.
    """
    width, height = np.ptp(x), np.ptp(y)
    if width < SLIM * height and height < SLIM * width:
        axes.set_aspect("equal")


def words(name: str) -> str:
    """A name as it is, never as a formula."""
    return name.replace("$", r"\$")
