"""Comparing the network with the exact solution on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ntkrun.jets import plan_streams
from ntkrun.network import output_streams
from ntkrun.objective import Objective

CHUNK = 2**15


@dataclass(frozen=True)
class Solution:
    """Values on an equispaced grid.

    Attributes:
        axes: the grid's coordinates by letter, ``[G]`` each.
        prediction: ``[*grid, fields]``.
        exact: the same shape, or ``None`` when no solution is known.
    """

    axes: dict[str, NDArray[np.float64]]
    prediction: NDArray[np.float64]
    exact: NDArray[np.float64] | None


class Evaluator:
    """Evaluates a network on the grid of its problem.

    Args:
        objective: the problem and the network.
        grid: points per coordinate.
    """

    def __init__(self, objective: Objective, grid: int) -> None:
        self._objective = objective
        self._grid = grid
        self._plan = plan_streams([""], objective.pde.coordinates)
        points = objective.pde.domain.grid(grid)
        exact = objective.pde.exact(objective.pde.columns(points))
        if exact is not None:
            exact = exact.reshape(len(points), -1).to(objective.like.device)
        self._exact = exact
        self._points = points.to(objective.like)

    def error(self) -> float | None:
        """Relative L2 error over all grid points and fields, in float64; ``None`` without a solution."""
        if self._exact is None:
            return None
        difference = self._predict() - self._exact
        return float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(self._exact))

    def solution(self) -> Solution:
        """Prediction and solution on the grid."""
        pde = self._objective.pde
        shape = [self._grid] * len(pde.coordinates) + [len(pde.fields)]
        axes = {c: np.linspace(pde.domain.low[c], pde.domain.high[c], self._grid) for c in pde.coordinates}
        exact = None if self._exact is None else self._exact.reshape(shape).cpu().numpy()
        return Solution(axes, self._predict().reshape(shape).cpu().numpy(), exact)

    def _predict(self) -> Tensor:
        with torch.no_grad():
            parts = [output_streams(self._objective.network, x, self._plan)[0] for x in self._points.split(CHUNK)]
        return torch.cat(parts).double()
