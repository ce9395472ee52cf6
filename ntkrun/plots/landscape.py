"""The figure of the loss on a plane through the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

LEVELS = 25


def plot_landscape(arrays: Mapping[str, NDArray[Any]]) -> Figure:
    """Level lines of the weighted loss, by powers of ten, with the run in the middle.

    Args:
        arrays: ``a``, the coordinates ``[G]`` along either direction, and ``loss``, ``[G, G]`` over a and b.
    """
    a, loss = arrays["a"], arrays["loss"]
    figure = Figure(figsize=(5.6, 4.4))
    axes = figure.subplots()
    least = np.nextafter(0, 1) if not (loss > 0).any() else loss[loss > 0].min()
    image = axes.contourf(a, a, np.log10(np.maximum(loss, least)).T, levels=LEVELS, cmap="viridis")
    axes.contour(a, a, np.log10(np.maximum(loss, least)).T, levels=image.levels, colors="white", linewidths=0.3)
    axes.plot(0, 0, "+", color="red", markersize=10)
    axes.grid(False)
    axes.set(xlabel="$a$", ylabel="$b$", title=r"Weighted loss at $\theta + a d_1 + b d_2$", aspect="equal")
    figure.colorbar(image, ax=axes, label=r"$\log_{10}$ loss")
    return figure
