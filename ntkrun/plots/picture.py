"""A solution as the pixels of a picture, for programs that take nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from ntkrun.plots.run import STYLE, plot_solution

DPI = 80


def solution_picture(solution: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
    """Prediction, solution and error as ``plot_solution`` draws them.

    Args:
        solution: the arrays of ``solution.npz``.

    Returns:
        Red, green and blue, ``[height, width, 3]``.
    """
    with matplotlib.rc_context({**STYLE, "figure.dpi": DPI}):
        canvas: Any = FigureCanvasAgg(plot_solution(solution))
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
