"""What Gauss-Newton keeps of earlier draws of points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.state_schema import Like, ListOf, NoneOr, Real, Whole
from ntkrun.objective.jacobian_rows import Rows
from ntkrun.optimizer.least_squares import CHOLESKY_LIMIT, LeastSquares, Solution, cholesky_factor, normal_matrix

MOST = 3000  # parameters: a step costs their third power, and a checkpoint holds a matrix of their square
FEW_ROWS = 2  # parameters per row, beyond which rows alone are much cheaper
BEHIND = 5.0  # times the loss at the points just fitted, beyond which that at new ones is left behind
LOOKS = 10  # draws over which it is
SLOW = 20  # draws left behind until half of what is remembered is kept from one to the next


class Memory:
    """J'J of earlier draws of points, by which steps are held to what these have taught: d'H d is added to the model.

    Where points are drawn anew at every step, one that fits its draw alone undoes what earlier ones have settled,
    wherever its rows do not determine the parameters, and follows the noise of the draw where they do. With
    H = b (H + J'J) at every draw, the step is that of recursive least squares with the forgetting factor b, or of an
    extended Kalman filter (Haykin, Adaptive Filter Theory), which takes earlier residuals for settled: an
    average over 1 / (1 - b) draws.

    Steps whose gain holds elsewhere are the better for no memory, which slows them down. A draw counts as left behind
    where the loss at new points was more than ``BEHIND`` times that at the points just fitted, in the geometric mean
    over the last ``LOOKS`` draws. After k such draws b = k / (k + ``SLOW``), and ``most`` in the end, for rows at the
    parameters of long ago say little. Points that stay for a step make it begin anew.

    Args:
        most: the largest b; 0 for no memory.
        like: of the parameters' device, in float64.
        parameters: P.
    """

    def __init__(self, most: float, like: Tensor, parameters: int) -> None:
        self._most = most
        self._like = like
        self._parameters = parameters
        self._drawn = False  # points are new to the coming step
        self._forget()

    def _forget(self) -> None:
        self._behind = 0  # k
        self._fitted = 0.0  # loss after the last step, where there was one
        self._ratios: list[float] = []  # logarithms of the losses at new points over those
        self._total: Tensor | None = None  # H + J'J of the last step, its lower triangle

    def points_drawn(self) -> None:
        """The points of the coming step are others than those of the last."""
        self._drawn = True

    def least_squares(self, rows: Rows, residual: Tensor) -> RememberingLeastSquares | None:
        """The problem of a step; ``None`` where nothing is to be remembered.

        Args:
            rows: J.
            residual: R, ``[N]``.
        """
        drawn, self._drawn = self._drawn, False
        if not self._most or self._parameters > min(MOST, FEW_ROWS * rows.count):
            return None
        if not drawn:
            self._forget()
            return None
        loss = float(residual.square().sum())
        if self._fitted > 0 and 0 < loss < math.inf:
            self._ratios = [*self._ratios, math.log(loss / self._fitted)][-LOOKS:]
        if len(self._ratios) == LOOKS and sum(self._ratios) > LOOKS * math.log(BEHIND):
            self._behind += 1
        if not self._behind:
            return None
        kept = min(self._most, self._behind / (self._behind + SLOW))
        squares = RememberingLeastSquares(rows, residual, None if self._total is None else kept * self._total)
        self._total = squares.matrix
        return squares

    def fitted(self, loss: float) -> None:
        """Take note of the loss after a step, at its own points."""
        self._fitted = loss

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume, as tensors and plain values."""
        own = {"behind": self._behind, "fitted": self._fitted, "ratios": list(self._ratios)}
        return {**own, "total": self._total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave, read by ``state_schema``."""
        self._behind, self._fitted, self._ratios = state["behind"], state["fitted"], list(state["ratios"])
        self._total = state["total"]

    def state_schema(self) -> Any:
        """What a saved state must look like, see ``ntkrun.common.state_schema``."""
        like = self._like.new_zeros(1, 1).expand(self._parameters, self._parameters)
        return {
            "behind": Whole(),
            "fitted": Real(least=0),
            "ratios": ListOf(Real(), LOOKS),
            "total": NoneOr(Like(like, any_order=True)),
        }


class RememberingLeastSquares(LeastSquares):
    """Solutions of min |J d + R|^2 + d'H d + mu |d|^2 for any mu, by Cholesky factors of J'J + H + mu.

    Args:
        rows: J.
        residual: R, ``[N]``.
        past: the lower triangle of H, ``[P, P]``.

    Attributes:
        matrix: the lower triangle of J'J + H.
    """

    def __init__(self, rows: Rows, residual: Tensor, past: Tensor | None) -> None:
        self.rows = rows
        self.gradient = rows.rmatvec(residual)
        self.matrix = normal_matrix(rows, residual)
        self.scale = float(self.matrix.diagonal().sum())
        if past is not None:
            self.matrix += past

    def at(self, mu: float) -> RememberingSolution | None:
        if mu < CHOLESKY_LIMIT * float(self.matrix.diagonal().sum()):
            return None
        factor = cholesky_factor(self.matrix, mu)
        return None if factor is None else RememberingSolution(self, factor, mu)

    def predicted(self, solution: Solution) -> float:
        """|R|^2 - |R + J d|^2 = -2 d'J'R - |J d|^2."""
        return float(-2 * (self.gradient @ solution.step) - self.image(solution).square().sum())


class RememberingSolution(Solution):
    """A solution by a Cholesky factor.

    Args:
        owner: J and J'R.
        factor: of J'J + H + mu.
        mu: the damping.
    """

    def __init__(self, owner: RememberingLeastSquares, factor: Tensor, mu: float) -> None:
        self._owner = owner
        self._factor = factor
        self.mu = mu
        self.step = self._inverse(owner.gradient)

    def solve(self, right: Tensor, accuracy: float = 1.0) -> Tensor:
        return self._inverse(self._owner.rows.rmatvec(right))

    def _inverse(self, right: Tensor) -> Tensor:
        return -torch.cholesky_solve(right[:, None], self._factor)[:, 0]
