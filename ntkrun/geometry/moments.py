"""Rules of quadrature over solids and surfaces that have none of their own, fitted to moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from ntkrun.geometry.rule import Array, Rule

PER_SQUARE = 16  # Sobol points on a surface for every one that a square with nodes^2 of them would have
DRAWS, DRAWN = 4, 2**16  # independent estimates of moments that are not known, and Sobol points of each


class Polynomials:
    """Products of Legendre polynomials over a box, of so high a total degree: at most 1 there, the first of them 1.

    Args:
        low, high: corners of the box, ``[d]``; it may be flat.
        degree: of the products.
    """

    def __init__(self, low: Array, high: Array, degree: int) -> None:
        self.degree = degree
        self._middle, half = (low + high) / 2, (high - low) / 2
        self.half: Array = np.where(half > 0, half, 1.0)
        powers = np.indices((degree + 1,) * len(low)).reshape(len(low), -1).T
        self.powers = powers[powers.sum(1) <= degree]  # [m, d]; the constant is the first

    def at(self, points: Array) -> Array:
        """Their values at points ``[N, d]``, ``[m, N]``."""
        return self._products(points, [np.eye(self.degree + 1)] * points.shape[1])

    def integrated(self, points: Array) -> Array:
        """Integrals of them along the first coordinate, from the middle of the box, ``[m, N]``."""
        columns: list[Array] = [np.eye(self.degree + 1)] * points.shape[1]
        columns[0] = np.asarray(np.polynomial.legendre.legint(columns[0]), dtype=np.float64)
        values: Array = self.half[0] * self._products(points, columns)
        return values

    def between(self, axis: int, ends: Array) -> Array:
        """Integrals along a coordinate between neighbouring places ``[n + 1]`` of its factors, ``[degree + 1, n]``."""
        series = np.polynomial.legendre.legint(np.eye(self.degree + 1))
        values = np.polynomial.legendre.legval((ends - self._middle[axis]) / self.half[axis], series)
        integrals: Array = self.half[axis] * np.diff(values, axis=1)
        return integrals

    def _products(self, points: Array, coefficients: Sequence[Array]) -> Array:
        """Products of series of Legendre polynomials, ``[terms, degree + 1]`` by coordinate, that are in ``powers``."""
        places = (points - self._middle) / self.half
        values = np.ones((len(self.powers), len(points)))
        for place, series, power in zip(places.T, coefficients, self.powers.T, strict=True):
            values *= np.polynomial.legendre.legval(place, series)[power]
        return values


def fitted(points: Array, values: Array, moments: Array, error: float = 0.0) -> Rule:
    """A rule that gives some functions their integrals, with weights as equal as that allows.

    Of all such weights those with the least squared distance from equal ones are taken (moment fitting, Müller, Kummer,
    Oberlack, Int. J. Numer. Meth. Engng 96, 2013). Of evenly spread points, several times as many as functions,
    hardly any is negative.

    Args:
        points: of the rule, inside of the region, ``[Q, d + k]``.
        values: of the functions there, the first of which is 1, ``[m, Q]``.
        moments: integrals of the functions, ``[m]``.
        error: of these, see ``Rule``.
    """
    equal = np.full(len(points), moments[0] / len(points))
    change = np.linalg.lstsq(values, moments - values @ equal, rcond=1e-10)[0]
    return Rule(points, equal + change, error)


def sobol(count: int, dimensions: int, seed: int = 0) -> Tensor:
    """Scrambled Sobol points of the unit cube, ``[count, dimensions]`` in float64."""
    return SobolEngine(dimensions, scramble=True, seed=seed).draw(count, dtype=torch.float64)


def with_normals(polynomials: Polynomials, points: Array) -> Array:
    """Polynomials on a surface, and each times every component of the normal, at points ``[N, 6]``, ``[4 m, N]``."""
    values = polynomials.at(points[:, :3])
    factors = [np.ones(len(points)), *points[:, 3:].T]
    return np.concatenate([values * factor for factor in factors])


def moments_of(values: Callable[[Array], Array], rules: Iterable[Rule]) -> Array:
    """Integrals of functions, which give ``[m, N]`` at points, by the sum of some rules, ``[m]``."""
    total: Array = sum(values(rule.points) @ rule.weights for rule in rules)  # type: ignore[assignment]
    return total


def inside_of(polynomials: Polynomials, surface: Iterable[Rule]) -> Array:
    """Integrals of polynomials over a solid, by the divergence theorem from rules with outward normals, ``[m]``.

    These are exact where the rules are for polynomials of a degree higher by one, times a component of the normal.
    """
    return moments_of(lambda x: polynomials.integrated(x[:, :3]) * x[:, 3], surface)


def estimated(dimension: int, moments: Callable[[Tensor], Array]) -> tuple[Array, float]:
    """Moments from ``DRAWS`` independent sets of ``DRAWN`` Sobol points each.

    Args:
        dimension: of the unit cube.
        moments: from points of the unit cube, ``[m]``; the first is the measure, or a part of it.

    Returns:
        ``[m]``, and the largest standard error of them.
    """
    each = [moments(sobol(DRAWN, dimension, seed)) for seed in range(1, DRAWS + 1)]
    spread = np.std(each, axis=0, ddof=1) / math.sqrt(DRAWS)
    return np.mean(each, axis=0), float(spread.max())
