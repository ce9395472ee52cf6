"""Damped least squares for many rows and many parameters: a sketch of the kernel, and conjugate gradients.

The smaller of K = J J' and G = J'J is approximated from below by a randomised Nyström approximation A'A of low rank.
On the kernel's side, random sums of rows of J (CountSketch: Clarkson, Woodruff, arXiv 1207.6365), which cost no more
than forming the rows once, span a space with the orthonormal basis V, and A = (J V)'. On the side of the parameters,
sums of columns have the basis Q, and A = Q'J. M = A'A + mu is inverted by a Cholesky factor of A A' + mu.

As the eigenvalues of the kernel of a PINN fall fast, a rank little above the number of those larger than mu makes
M^-1 (K + mu) nearly the identity, and a few conjugate gradient iterations, each of one product with J and one with its
transpose, solve the system (Frangella, Tropp, Udell, arXiv 2110.02820). The step of the sketched model, with A'A in
place of the kernel, is where they start, or is taken as it is (sketch and solve).
"""

from __future__ import annotations

import logging
import math
import struct
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ntkrun.backend.transfer import moved
from ntkrun.objective.jacobian_rows import Rows
from ntkrun.optimizer.least_squares import CHOLESKY_LIMIT, REFINED, LeastSquares, Solution, cholesky_factor

log = logging.getLogger(__name__)

LEAST_SIZE = 256  # rank of a sketch by default: about as many eigenvalues are larger than late dampings
LARGEST = 2**25  # entries of a sketch, 256 MiB, that is taken by default; four such are held while it is made
FRACTION = 8  # the part of the smaller side of J that it is beyond that
ITERATIONS = 100  # the most of conjugate gradients


@dataclass(frozen=True)
class Sketching:
    """How a sketched system is solved.

    Args:
        size: rank of the sketch; ``auto``: an eighth of the smaller side of J, at least ``LEAST_SIZE``, and no more
            than ``LARGEST`` allows.
        tolerance: relative accuracy of a step; ``None`` takes the sketched model's own.
    """

    size: int | Literal["auto"] = "auto"
    tolerance: float | None = 1e-6

    def rank(self, rows: int, columns: int) -> int:
        """Rank of the sketch of a matrix ``[rows, columns]``."""
        smaller, larger = sorted((rows, columns))
        if self.size != "auto":
            return min(self.size, smaller)
        return min(max(LEAST_SIZE, smaller // FRACTION), max(1, LARGEST // larger), smaller)


class SketchedLeastSquares(LeastSquares):
    """Solutions of min |J d + R|^2 + mu |d|^2 with a sketch of J, for any mu > 0.

    The sketch is drawn anew from the bits of R, so that a run that is resumed draws the same.

    Args:
        rows: J.
        residual: R, ``[N]``.
        sketching: size and accuracy.

    Attributes:
        kernel_side: whether there are at most as many rows as columns, so that K is solved, else G.
        sketch: A, ``[size, min(N, P)]``.
    """

    def __init__(self, rows: Rows, residual: Tensor, sketching: Sketching) -> None:
        self.rows = rows
        self.residual = residual
        self.tolerance = sketching.tolerance
        self.gradient = rows.rmatvec(residual)
        self.scale = float(rows.squares().sum())
        self.kernel_side = rows.count <= rows.columns
        size = sketching.rank(rows.count, rows.columns)
        generator = torch.Generator().manual_seed(_seed(residual))
        if self.kernel_side:
            buckets, signs = _buckets(rows.count, size, generator, residual)
            basis = torch.linalg.qr(rows.sums(buckets, signs, size).T).Q
            self.sketch = rows.matmat(basis).T
        else:
            buckets, signs = _buckets(rows.columns, size, generator, residual)
            basis = torch.linalg.qr(rows.column_sums(buckets, signs, size)).Q
            self.sketch = rows.rmatmat(basis).T
        self._gram = self.sketch @ self.sketch.T

    def at(self, mu: float) -> SketchedSolution | None:
        if mu < CHOLESKY_LIMIT * self.scale:
            return None
        factor = cholesky_factor(self._gram, mu)
        return None if factor is None else SketchedSolution(self, factor, mu)

    def image(self, solution: Solution) -> Tensor:
        return solution.image if isinstance(solution, SketchedSolution) else super().image(solution)

    def predicted(self, solution: Solution) -> float:
        """From the step itself, for it solves the system to a tolerance only."""
        return float(-2 * (self.gradient @ solution.step) - self.image(solution).square().sum())

    def pull(self, vector: Tensor) -> Tensor:
        """From the smaller side of J to the larger: J'y of the kernel's side, J y of that of the parameters."""
        return self.rows.rmatvec(vector) if self.kernel_side else self.rows.matvec(vector)

    def left(self, right: Tensor, y: Tensor, pulled: Tensor, mu: float) -> Tensor:
        """What is left: -w - (K + mu) y of the kernel's side, -J'w - (G + mu) y of that of the parameters.

        Made from the vector of the larger side, as in conjugate gradients for least squares, so that rounding does not
        suffer from the square of the condition of J.

        Args:
            right: w, ``[N]``.
            y: of the smaller side.
            pulled: J'y, or J y.
            mu: the damping.
        """
        if self.kernel_side:
            return -right - self.rows.matvec(pulled) - mu * y
        return self.rows.rmatvec(-right - pulled) - mu * y


class SketchedSolution(Solution):
    """A solution by conjugate gradients from that of the sketched model on; or the latter alone.

    Args:
        owner: the system.
        factor: the Cholesky factor of A A' + mu.
        mu: the damping.

    Attributes:
        image: J d, ``[N]``.
        iterations: of conjugate gradients.
    """

    def __init__(self, owner: SketchedLeastSquares, factor: Tensor, mu: float) -> None:
        self._owner = owner
        self._factor = factor
        self.mu = mu
        right = owner.residual
        y, pulled, left, self.iterations = self._refined(right, owner.gradient, owner.tolerance)
        self.step = pulled if owner.kernel_side else y
        self.image = -right - left - mu * y if owner.kernel_side else pulled

    def solve(self, right: Tensor, accuracy: float = REFINED) -> Tensor:
        owner = self._owner
        tolerance = None if owner.tolerance is None else max(owner.tolerance, accuracy)
        y, pulled, *_ = self._refined(right, None, tolerance)
        return pulled if owner.kernel_side else y

    def _refined(
        self, right: Tensor, gradient: Tensor | None, tolerance: float | None
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Preconditioned conjugate gradients for (K + mu) y = -w, or (G + mu) y = -J'w.

        Args:
            right: w, ``[N]``.
            gradient: J'w, where it is known.
            tolerance: relative accuracy of the step.

        Returns:
            y of the smaller side, what ``pull`` makes of it, what is left of the right-hand side, and iterations.
        """
        owner, mu = self._owner, self.mu
        if gradient is None and not owner.kernel_side:
            gradient = owner.rows.rmatvec(right)
        y = -self._inverse(right if owner.kernel_side or gradient is None else gradient)
        pulled = owner.pull(y)
        left = owner.left(right, y, pulled, mu)
        if tolerance is None:
            return y, pulled, left, 0
        direction = torch.zeros_like(y)
        before = math.inf
        for k in range(ITERATIONS):
            error = self._inverse(left)
            now = float(left @ error)
            if now <= 0 or self._small(error, now, y, pulled, tolerance):
                return y, pulled, left, k
            direction = error + now / before * direction
            ahead = owner.pull(direction)
            length = now / float(ahead.square().sum() + mu * direction.square().sum())
            y = y + length * direction
            pulled = pulled + length * ahead
            left = owner.left(right, y, pulled, mu)
            before = now
        log.debug("damping %.2e: not solved to %.0e within %d iterations", mu, tolerance, ITERATIONS)
        return y, pulled, left, ITERATIONS

    def _small(self, error: Tensor, energy: float, y: Tensor, pulled: Tensor, tolerance: float) -> bool:
        """Whether a step is off by no more than a part of its length.

        On the kernel's side M <= K + mu makes left'M^-1 left an upper bound of the squared error of J'y. On that of the
        parameters M^-1 left is what the sketched model says the error is.
        """
        if self._owner.kernel_side:
            return math.sqrt(energy) <= tolerance * float(pulled.norm())
        return float(error.norm()) <= tolerance * float(y.norm())

    def _inverse(self, vector: Tensor) -> Tensor:
        """(A'A + mu)^-1 v, by Woodbury's formula."""
        sketch = self._owner.sketch
        inside = torch.cholesky_solve((sketch @ vector)[:, None], self._factor)[:, 0]
        return (vector - inside @ sketch) / self.mu


def _buckets(count: int, size: int, generator: torch.Generator, like: Tensor) -> tuple[Tensor, Tensor]:
    """One of ``size`` sums for each of ``count`` rows, as many in each as in any other, and a random sign."""
    buckets = torch.randperm(count, generator=generator) % size
    signs = torch.randint(2, (count,), generator=generator, dtype=torch.int8) * 2 - 1
    return moved(buckets, like, torch.int64), moved(signs, like)


def _seed(residual: Tensor) -> int:
    """A seed from the bits of a vector's square."""
    (bits,) = struct.unpack("<q", struct.pack("<d", float(residual.square().sum())))
    return int(bits) % 2**63
