"""Comparing the network with the exact solution on a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ntkrun.common.user_frames import cause, where
from ntkrun.jets import plan_streams
from ntkrun.network import output_streams
from ntkrun.pde import PDE, ProblemError, Reference
from ntkrun.pde.check import place
from ntkrun.runtime.distributed import present
from ntkrun.runtime.memory import check_fits

CHUNK = 2**12  # points at a time: their activations stay in the cache


@dataclass(frozen=True)
class Solution:
    """Values on a product grid.

    Attributes:
        axes: the grid's coordinates by letter, ``[G]`` each.
        prediction: ``[*grid, fields]``.
        exact: the same shape, or ``None`` when no solution is known.
    """

    axes: dict[str, NDArray[np.float64]]
    prediction: NDArray[np.float64]
    exact: NDArray[np.float64] | None


class Evaluator:
    """Evaluates a network on a grid: that of the problem's reference solution, or an equispaced one.

    Args:
        pde: the problem.
        network: the network.
        like: of the network's dtype and device.
        grid: points per coordinate of an equispaced grid.

    Raises:
        ProblemError: the problem's solution fails, has the wrong shape or is not finite.
        ConfigError: the grid does not fit into memory.
    """

    def __init__(self, pde: PDE, network: nn.Module, like: Tensor, grid: int) -> None:
        self._pde = pde
        self._network = network
        self._plan = plan_streams([""], pde.coordinates)
        domain, reference = pde.domain, _reference(pde)
        if reference is None:
            values = grid ** len(pde.coordinates) * (len(pde.coordinates) + 3 * len(pde.fields))
            check_fits(8 * values, f"pde.grid={grid}")
        self._axes = (
            {c: np.linspace(domain.low[c], domain.high[c], grid) for c in pde.coordinates}
            if reference is None
            else {c: np.asarray(reference.axes[c]) for c in pde.coordinates}
        )
        axes = [torch.as_tensor(axis, dtype=torch.float64) for axis in self._axes.values()]
        points = torch.cartesian_prod(*axes).reshape(-1, len(axes))
        self._shape = [*map(len, axes), len(pde.fields)]
        exact = _exact(pde, points) if reference is None else torch.as_tensor(reference.values)
        self._exact = None if exact is None else exact.reshape(len(points), -1).to(like.device, torch.float64)
        self._points = points.to(like)
        self._known: Tensor | None = None  # where there is a solution; left out where there is one everywhere
        if self._exact is not None:
            known = ~torch.isnan(self._exact)
            self._known = None if known.all() else known
            self._size = torch.linalg.vector_norm(self._exact[known])

    def error(self) -> float | None:
        """Relative L2 error over all grid points and fields, in float64; ``None`` without a solution."""
        if self._exact is None:
            return None
        difference = self._predict() - self._exact
        if self._known is not None:
            difference = difference[self._known]
        return float(torch.linalg.vector_norm(difference) / self._size)

    def solution(self) -> Solution:
        """Prediction and solution on the grid."""
        exact = None if self._exact is None else self._exact.reshape(self._shape).cpu().numpy()
        return Solution(dict(self._axes), self._predict().reshape(self._shape).cpu().numpy(), exact)

    def _predict(self) -> Tensor:
        training = self._network.training
        self._network.eval()
        with torch.no_grad():
            parts = [output_streams(self._network, x, self._plan)[0] for x in self._points.split(CHUNK)]
        self._network.train(training)
        return torch.cat(parts).double()


class SharedEvaluator(Evaluator):
    """An evaluator whose error all processes of a run take from the one that leads, so that they decide alike."""

    def error(self) -> float | None:
        ranks = present()
        return ranks.broadcast(super().error() if ranks.leads else None)


def _exact(pde: PDE, points: Tensor) -> Tensor | None:
    """The closed form at ``points``, ``[N, d]``, checked; ``[N]`` or ``[N, fields]``."""
    try:
        exact: object = pde.exact(pde.columns(points))
    except ProblemError as error:
        raise ProblemError(f"exact(): {error}{where(error)}") from error
    except Exception as error:
        raise ProblemError(f"exact() fails with {cause(error)}") from error
    if exact is None:
        return None
    if not isinstance(exact, Tensor):
        raise ProblemError(f"exact() gives a {type(exact).__name__}, expected a tensor")
    n, fields = len(points), len(pde.fields)
    if list(exact.shape) not in [[n, fields]] + [[n]] * (fields == 1):
        raise ProblemError(f"exact() gives shape {list(exact.shape)} at {n} points, expected [{n}, {fields}]")
    if exact.is_complex():
        raise ProblemError("exact() gives complex numbers")
    bad = ~torch.isfinite(exact).reshape(n, -1).all(1)
    if bad.any():
        raise ProblemError(f"exact() is not finite at {place(pde, points[bad][0])}")
    return exact


def _reference(pde: PDE) -> Reference | None:
    """The numerical solution, checked."""
    try:
        reference = pde.reference()
    except Exception as error:
        raise ProblemError(f"reference() fails with {cause(error)}") from error
    if reference is None:
        return None
    if tuple(reference.axes) != pde.coordinates:
        raise ProblemError(
            f"reference() has the axes {', '.join(reference.axes)}; the coordinates are {', '.join(pde.coordinates)}"
        )
    shape, expected = np.shape(reference.values), [*map(len, reference.axes.values()), len(pde.fields)]
    if list(shape) != expected:
        raise ProblemError(f"reference() gives values of shape {list(shape)}, expected {expected}")
    return reference
