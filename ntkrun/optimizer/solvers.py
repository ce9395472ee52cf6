"""The choice of a solver for the damped least squares problems of Gauss-Newton."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ntkrun.objective.jacobian_rows import JacobianRows, Rows
from ntkrun.optimizer.least_squares import DampedLeastSquares, LeastSquares
from ntkrun.optimizer.sketched import SketchedLeastSquares, Sketching

Solver = Literal["auto", "cholesky", "qr", "sketched", "sketch_and_solve"]

SKETCHED: tuple[Solver, ...] = ("sketched", "sketch_and_solve")
"""Solvers that see the Jacobian through products."""

MATRICES = 3  # of the smaller side: the Gram matrix, a damped copy, and its factor
SKETCHES = 4  # of rank times the larger side, while a sketch is made: sums, their basis, its work space, the product
LARGE = 3000  # rows and parameters from which on a sketch is taken


def resolve(solver: Solver, rows: int, parameters: int) -> Solver:
    """The solver in use for so many residual rows and parameters.

    ``auto`` stays as it is where a Gram matrix of the smaller side serves, by Cholesky or QR, see
    ``DampedLeastSquares``; it becomes ``sketched`` where both sides are large.
    """
    return "sketched" if solver == "auto" and min(rows, parameters) >= LARGE else solver


def least_squares(
    rows: Rows, residual: Tensor, solver: Solver, size: int | Literal["auto"], tolerance: float
) -> LeastSquares:
    """The damped least squares problem of a step.

    Args:
        rows: J~.
        residual: R, ``[N]``.
        solver: as asked for.
        size: rank of a sketch.
        tolerance: relative accuracy of ``sketched``.
    """
    chosen = resolve(solver, rows.count, rows.columns)
    if chosen == "sketched" or chosen == "sketch_and_solve":
        accuracy = tolerance if chosen == "sketched" else None
        return SketchedLeastSquares(rows, residual, Sketching(size, accuracy))
    if not isinstance(rows, JacobianRows):
        raise TypeError(f"solver={solver} takes rows as matrices")
    return DampedLeastSquares(rows, residual, chosen)


def matrix_entries(solver: Solver, size: int | Literal["auto"], rows: int, parameters: int) -> int:
    """How many entries the matrices of a solver have for so many residual rows and parameters."""
    if resolve(solver, rows, parameters) in SKETCHED:
        rank = Sketching(size).rank(rows, parameters)
        return SKETCHES * rank * max(rows, parameters) + MATRICES * rank**2
    return MATRICES * min(rows, parameters) ** 2


def matrix_work(solver: Solver, size: int | Literal["auto"], rows: int, parameters: int) -> float:
    """Multiplications and additions that a solver makes for a step, roughly."""
    smaller, larger = sorted((rows, parameters))
    if resolve(solver, rows, parameters) in SKETCHED:
        rank = Sketching(size).rank(rows, parameters)
        return 2.0 * rank * rows * parameters + 4.0 * rank**2 * larger + rank**3 / 3
    return 2.0 * smaller * rows * parameters + smaller**3 / 3
