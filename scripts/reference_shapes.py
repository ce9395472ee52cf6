"""Compute the reference solutions on shapes in ``ntkrun/pde/data`` and check each against a second method.

    python scripts/reference_shapes.py [poisson_l]

Each file holds the grid's axes by letter, ``values`` of shape ``[*grid, fields]``, NaN outside of the shape, and
``tolerance``, a bound on their absolute error; the script prints what establishes it and stops where it fails.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DATA = Path(__file__).parent.parent / "ntkrun" / "pde" / "data"


def check(what: str, difference: float, bound: float) -> None:
    """Print a difference between two computations; stop where it exceeds its bound."""
    print(f"  {what}: {difference:.1e} (bound {bound:.0e})")
    if not difference <= bound:
        raise SystemExit(f"{what}: {difference:.1e} exceeds {bound:.0e}")


# Poisson's equation on an L shape ----------------------------------------------------------------------------

CORNERS = np.array([0, 1j, -1 + 1j, -1 - 1j, 1 - 1j, 1])  # one after the other, the inner one first


class Lightning:
    """u = h - (x^2 + y^2) / 4 with a harmonic h, the real part of a rational function of z = x + i y.

    Its poles cluster exponentially at the corners, outside of the shape, and its coefficients fit (x^2 + y^2) / 4 on
    the boundary by least squares (Gopal and Trefethen, SIAM J. Numer. Anal. 57, 2019). By the maximum principle the
    error is largest on the boundary, where it is known.
    """

    def __init__(self, poles: int, degree: int) -> None:
        k = np.arange(1, poles + 1)
        distance = 0.8 * np.exp(-4 * (math.sqrt(poles) - np.sqrt(k)))
        outward = np.array([1 + 1j, 1 + 1j, -1 + 1j, -1 - 1j, 1 - 1j, 1 + 1j]) / math.sqrt(2)
        self._poles = (CORNERS[:, None] + distance * outward[:, None]).ravel()
        self._distance = np.tile(distance, len(CORNERS))
        self._degree = degree
        z = boundary(np.concatenate([np.geomspace(1e-13, 0.5, 40 * poles), np.linspace(1e-3, 0.5, 400)]))
        # Weighted, so that the crowd of points at a corner does not count for more than the rest.
        self._factors = np.linalg.lstsq(self._matrix(z), abs(z) ** 2 / 4, rcond=None)[0]

    def __call__(self, z: NDArray[np.complex128]) -> Array:
        """The solution at points of the shape."""
        values: Array = self._matrix(z) @ self._factors - abs(z) ** 2 / 4
        return values

    def _matrix(self, z: NDArray[np.complex128]) -> Array:
        rational = self._distance / (z[:, None] - self._poles)
        powers = ((z + 0.25 + 0.25j) / 1.5)[:, None] ** np.arange(self._degree + 1)
        columns = np.hstack([rational, powers])
        matrix: Array = np.hstack([columns.real, columns.imag])
        return matrix


def boundary(share: Array) -> NDArray[np.complex128]:
    """Points on all sides of the L shape, at these shares of a side from both of its ends."""
    sides = zip(CORNERS, np.roll(CORNERS, -1), strict=True)
    return np.concatenate([a + (b - a) * s for a, b in sides for s in (share, 1 - share)])


def intensity(solution: Lightning) -> float:
    """The factor of r^(2/3) cos(2 phi / 3) in a solution, by least squares on the line that halves the shape.

    There u - r^2 log r / (3 pi) is a sum of powers of r with exponents 2/3, 2, 10/3, 14/3, ...
    """
    r = np.linspace(0.002, 0.6, 400)
    u = solution(-r * np.exp(0.25j * np.pi)) - r**2 * np.log(r) / (3 * np.pi)
    factors = np.linalg.lstsq(r[:, None] ** (np.array([2, 6, 10, 14, 18, 22]) / 3), u, rcond=None)[0]
    return float(factors[0])


def poisson_l() -> dict[str, Array]:
    """u_xx + u_yy = -1 on [-1, 1]^2 without x > 0, y > 0; u = 0 on the boundary."""
    tolerance = 1e-8
    axis = np.linspace(-1, 1, 81)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    z = (x + 1j * y).ravel()
    solution, other = Lightning(60, 24), Lightning(45, 20)
    fine = boundary(np.concatenate([np.geomspace(1e-14, 0.5, 4001), np.linspace(0, 0.5, 4001)[1:]]))
    check("largest error on the boundary, and so anywhere", float(abs(solution(fine)).max()), tolerance)
    inside = ~((x > 0) & (y > 0))
    u = np.where(inside, solution(z).reshape(x.shape), np.nan)
    difference = abs(u - other(z).reshape(x.shape))[inside].max()
    check("with 45 against 60 poles at every corner", float(difference), 10 * tolerance)
    edge = (abs(x) == 1) | (abs(y) == 1) | ((x == 0) & (y >= 0)) | ((y == 0) & (x >= 0))
    u[edge & inside] = 0
    check("intensity of the singular function at the corner", abs(intensity(solution) - 0.401931), 1e-6)
    print(f"  u(-1/2, -1/2) = {u[20, 20]:.10f}, largest u = {np.nanmax(u):.8f}")
    return {"x": axis, "y": axis, "values": u[..., None], "tolerance": np.array(tolerance)}


def main() -> None:
    """Compute, check and write."""
    problems = {"poisson_l": poisson_l}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*problems, []], default=list(problems), metavar="NAME")
    for name in parser.parse_args().names:
        print(f"{name}:")
        np.savez_compressed(DATA / f"{name}.npz", **problems[name]())


if __name__ == "__main__":
    main()
