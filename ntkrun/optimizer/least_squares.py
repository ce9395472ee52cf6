"""Damped linear least squares, min |J d + R|^2 + mu |d|^2, for one J and many mu.

Either side serves: (J'J + mu)^-1 J' = J'(J J' + mu)^-1, and the smaller matrix is solved. A Gram matrix squares
singular values, so that those below 1e-8 of the largest drown in round-off; as long as mu is well above that round-off,
it does not matter. Below, J itself is factorised by QR once, and [A; sqrt(mu) I] for every mu, A being the triangle.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from ntkrun.objective.jacobian_rows import JacobianRows, Rows

Direct = Literal["auto", "cholesky", "qr"]

EPSILON = torch.finfo(torch.float64).eps
CHOLESKY_LIMIT = 64 * EPSILON  # the least mu / |J|_F^2 for a Gram matrix; |J|_F^2 bounds its largest eigenvalue
REFINED = 1e-10  # relative accuracy of a solution from a Gram matrix
REFINEMENTS = 4  # the most corrections of such a solution
COLUMN_BLOCKS = 4  # of a Gram matrix, of which only those on and below the diagonal are computed


class Solution(ABC):
    """The solution for one mu.

    Attributes:
        step: d = -(J'J + mu)^-1 J'R, ``[P]``.
        mu: the damping.
    """

    step: Tensor
    mu: float

    @abstractmethod
    def solve(self, right: Tensor, accuracy: float = REFINED) -> Tensor:
        """-(J'J + mu)^-1 J'w for another right-hand side w, ``[N]``; returns ``[P]``.

        Args:
            right: w.
            accuracy: relative, as far as round-off is concerned; what need not be accurate costs less.
        """


class Factorization(ABC):
    """What solutions for several mu have in common."""

    @abstractmethod
    def at(self, mu: float) -> Solution | None:
        """The solution for one mu; ``None`` where round-off leaves none."""


class LeastSquares(ABC):
    """Solutions of min |J d + R|^2 + mu |d|^2 for any mu > 0.

    Attributes:
        rows: J.
        gradient: J'R, ``[P]``.
        scale: |J|_F^2, which bounds the largest eigenvalue of J'J.
    """

    rows: Rows
    gradient: Tensor
    scale: float

    @abstractmethod
    def at(self, mu: float) -> Solution | None:
        """The solution for one mu; ``None`` where round-off leaves none."""

    def image(self, solution: Solution) -> Tensor:
        """J d for the step of a solution, ``[N]``."""
        return self.rows.matvec(solution.step)

    def predicted(self, solution: Solution) -> float:
        """|R|^2 - |R + J d|^2 for the step of a solution; a sum of positive numbers, so that nothing cancels."""
        d = solution.step
        return float(solution.mu * d.square().sum() - self.gradient @ d)


class DampedLeastSquares(LeastSquares):
    """Solutions from factorisations of J, exact but for round-off.

    Args:
        rows: J.
        residual: R, ``[N]``.
        solver: ``cholesky`` of the smaller Gram matrix, ``qr`` of J, or ``auto``: the first down to ``CHOLESKY_LIMIT``.
    """

    rows: JacobianRows

    def __init__(self, rows: JacobianRows, residual: Tensor, solver: Direct = "auto") -> None:
        self.rows = rows
        self.residual = residual
        self.solver = solver
        self.gradient = rows.rmatvec(residual)
        self._gram: GramFactorization | None = None
        self._qr: QRFactorization | None = None
        self.scale = self.gram.trace if solver != "qr" else float(rows.squares().sum())

    @property
    def gram(self) -> GramFactorization:
        """The Gram matrix of the smaller side, made when it is first needed."""
        if self._gram is None:
            self._gram = GramFactorization(self.rows, self.residual, self.gradient)
        return self._gram

    @property
    def qr(self) -> QRFactorization:
        """The QR factorisation of J, made when it is first needed."""
        if self._qr is None:
            self._qr = QRFactorization(self.rows, self.residual)
        return self._qr

    @property
    def least(self) -> float:
        """The least mu / |J|_F^2 that can be resolved."""
        direct = self.solver == "qr" or (self.solver == "auto" and self.qr_fits)
        return EPSILON**2 if direct else CHOLESKY_LIMIT

    @property
    def qr_fits(self) -> bool:
        """Whether J can be factorised: by blocks of rows, or as a whole where there are fewer rows than columns."""
        return self.rows.count >= self.rows.columns or self.rows.fits

    def at(self, mu: float) -> Solution | None:
        relative = mu / max(self.scale, torch.finfo(torch.float64).tiny)
        if relative < self.least:
            return None
        if self.solver != "qr" and relative >= CHOLESKY_LIMIT:
            solution = self.gram.at(mu)
            if solution is not None or self.solver == "cholesky":
                return solution
        return self.qr.at(mu) if self.qr_fits else None


class GramFactorization(Factorization):
    """Cholesky factors of J'J + mu or J J' + mu, whichever is smaller.

    Args:
        rows: J.
        residual: R, ``[N]``.
        gradient: J'R, ``[P]``.

    Attributes:
        kernel_side: whether J J' is the smaller one.
        matrix: its lower triangle.
        trace: |J|_F^2.
    """

    def __init__(self, rows: JacobianRows, residual: Tensor, gradient: Tensor) -> None:
        self.rows = rows
        self.residual = residual
        self.gradient = gradient
        self.kernel_side = rows.count < rows.columns
        self.matrix = _kernel(rows, residual) if self.kernel_side else normal_matrix(rows, residual)
        self.trace = float(self.matrix.diagonal().sum())

    def at(self, mu: float) -> GramSolution | None:
        factor = cholesky_factor(self.matrix, mu)
        return None if factor is None else GramSolution(self, factor, mu)

    def damped(self, vector: Tensor, mu: float) -> Tensor:
        """(J'J + mu) v or (J J' + mu) v by J itself."""
        if self.kernel_side:
            return torch.add(self.rows.matvec(self.rows.rmatvec(vector)), vector, alpha=mu)
        return torch.add(self.rows.rmatvec(self.rows.matvec(vector)), vector, alpha=mu)


class GramSolution(Solution):
    """A solution by a Cholesky factor, corrected with J itself where round-off of the Gram matrix matters.

    Args:
        owner: the Gram matrix.
        factor: the Cholesky factor of it and mu.
        mu: the damping.
    """

    def __init__(self, owner: GramFactorization, factor: Tensor, mu: float) -> None:
        self._owner = owner
        self._factor = factor
        self.mu = mu
        self.step = self._finish(owner.residual if owner.kernel_side else owner.gradient)

    def solve(self, right: Tensor, accuracy: float = REFINED) -> Tensor:
        return self._finish(right if self._owner.kernel_side else self._owner.rows.rmatvec(right), accuracy)

    def _finish(self, right: Tensor, accuracy: float = REFINED) -> Tensor:
        solution = self._inverse(right)
        contraction = EPSILON * self._owner.trace / self.mu  # of the error by one correction
        error = contraction
        for _ in range(REFINEMENTS):
            if error < accuracy:
                break
            solution += self._inverse(right - self._owner.damped(solution, self.mu))
            error *= contraction
        return -self._owner.rows.rmatvec(solution) if self._owner.kernel_side else -solution

    def _inverse(self, right: Tensor) -> Tensor:
        return torch.cholesky_solve(right[:, None], self._factor)[:, 0]


class QRFactorization(Factorization):
    """A square A in place of J, by QR: J = Q A, or J' = Q A' where there are fewer rows than columns.

    Args:
        rows: J.
        residual: R, ``[N]``.
    """

    def __init__(self, rows: JacobianRows, residual: Tensor) -> None:
        self.rows = rows
        self.basis: Tensor | None = None
        if rows.count < rows.columns:
            self.basis, upper = torch.linalg.qr(rows.matrix().T)
            self.square, self.right = upper.T, residual
        else:
            upper = _tall_qr(rows, residual)
            self.square, self.right = upper[:-1, :-1], upper[:-1, -1]

    def at(self, mu: float) -> QRSolution | None:
        n = len(self.right)
        stacked = self.square.new_zeros(2 * n, n + 1)
        stacked[:n, :n], stacked[:n, n] = self.square, self.right
        stacked[n:, :n].diagonal().fill_(math.sqrt(mu))
        upper = torch.linalg.qr(stacked, mode="r")[1]
        if not bool(upper[:n, :n].diagonal().all()):
            return None
        return QRSolution(self, upper[:n, :n], upper[:n, n], mu)

    def pull(self, right: Tensor) -> Tensor:
        """A'w for a right-hand side w, ``[N]``, in the coordinates of A."""
        return self.rows.rmatvec(right) if self.basis is None else right @ self.square

    def lift(self, solution: Tensor) -> Tensor:
        """From coordinates of A to parameters, ``[P]``."""
        return solution if self.basis is None else self.basis @ solution


class QRSolution(Solution):
    """A solution by the triangle of [A; sqrt(mu) I].

    Args:
        owner: A.
        upper: the triangle, U.
        right: Q'R, ``[n]``.
        mu: the damping.
    """

    def __init__(self, owner: QRFactorization, upper: Tensor, right: Tensor, mu: float) -> None:
        self._owner = owner
        self._upper = upper
        self.mu = mu
        solution = torch.linalg.solve_triangular(upper, right[:, None], upper=True)
        self.step = -owner.lift(solution[:, 0])

    def solve(self, right: Tensor, accuracy: float = REFINED) -> Tensor:
        """By the corrected semi-normal equations (Björck 1987): U'U y = A'w, and once more for what is left."""
        pulled = self._owner.pull(right)
        solution = self._inverse(pulled)
        square = self._owner.square
        left = pulled - square.T @ (square @ solution) - self.mu * solution
        return -self._owner.lift(solution + self._inverse(left))

    def _inverse(self, right: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(self._upper.T, right[:, None], upper=False)
        solution: Tensor = torch.linalg.solve_triangular(self._upper, half, upper=True)[:, 0]
        return solution


def cholesky_factor(matrix: Tensor, mu: float) -> Tensor | None:
    """The factor of a matrix plus mu, of which the lower triangle is read; ``None`` where it is not positive."""
    damped = matrix.clone()
    damped.diagonal().add_(mu)
    factor, failed = torch.linalg.cholesky_ex(damped)
    return None if bool(failed) else factor


def normal_matrix(rows: Rows, like: Tensor) -> Tensor:
    """The lower triangle of J'J, ``[P, P]``, over all processes."""
    out = like.new_zeros(rows.columns, rows.columns)
    for _, block in rows.blocks():
        add_gram(out, block)
    return rows.ranks.sum(out)


def _kernel(rows: JacobianRows, like: Tensor) -> Tensor:
    """The lower triangle of J J', ``[N, N]``, over all processes.

    Each of several gets all rows in its share of the columns. Blocks that are not held are made once for every other
    one, or once for every strip of columns.
    """
    out = like.new_zeros(rows.count, rows.count)
    if rows.ranks.count > 1:
        for strip in rows.strips():
            add_gram(out, strip.T)
        return rows.ranks.sum(out)
    if rows.held:
        add_gram(out, rows.matrix().T)
        return out
    for places, block in rows.blocks():
        for others, other in rows.blocks():
            if isinstance(places, slice) or isinstance(others, slice):
                out[places, others] = block @ other.T
            else:
                out[places[:, None], others] = block @ other.T
    return out


def add_gram(out: Tensor, block: Tensor) -> None:
    """Add B'B to the lower triangle of ``out``, ``[P, P]``, in a few blocks of columns; spares almost half the work.

    Args:
        out: changed in place; what is above the diagonal is of no use afterwards.
        block: B, ``[n, P]``.
    """
    columns = block.shape[1]
    width = max(64, -(-columns // COLUMN_BLOCKS))
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        out[start:, start:stop].addmm_(block[:, start:].T, block[:, start:stop])


def _tall_qr(rows: JacobianRows, residual: Tensor) -> Tensor:
    """The triangle of [J R], ``[P + 1, P + 1]``, block by block of rows (TSQR), over all processes."""
    width = rows.columns + 1
    upper = residual.new_zeros(0, width)
    for places, block in rows.blocks():
        upper = _triangle(torch.cat([upper, torch.cat([block, residual[places, None]], dim=1)]))
    if rows.ranks.count > 1:
        stack = residual.new_zeros(rows.ranks.count, width, width)
        stack[rows.ranks.rank, : len(upper)] = upper
        upper = _triangle(rows.ranks.sum(stack).flatten(0, 1))
    return torch.nn.functional.pad(upper, (0, 0, 0, width - len(upper)))


def _triangle(matrix: Tensor) -> Tensor:
    upper: Tensor = torch.linalg.qr(matrix, mode="r")[1]
    return upper
