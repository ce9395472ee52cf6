"""Compute the reference solutions on shapes in ``ntkrun/pde/data`` and check each against a second method.

    python scripts/reference_shapes.py [poisson_l] [cylinder]

Each file holds the grid's axes by letter, ``values`` of shape ``[*grid, fields]``, NaN outside of the shape, and
``tolerance``, a bound on their absolute error; the script prints what establishes it and stops where it fails.
Needs SciPy.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

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


# Flow past a cylinder ------------------------------------------------------------------------------------------

REYNOLDS, LENGTH, HEIGHT = 20.0, 22.0, 4.1
CENTRE, RADIUS = np.array([2.0, 2.0]), 0.5
DRAG, LIFT = 5.57953523384, 0.010618948146  # of test case 2D-1, by spectral methods: G. Nabh, thesis, Heidelberg 1998

GAUSS, GAUSS_WEIGHTS = np.polynomial.legendre.leggauss(4)
LINE = {
    2: np.array([-1.0, 0.0, 1.0]),
    1: np.array([-1.0, 1.0]),
}  # nodes along an edge of biquadratic, bilinear elements


def lagrange(degree: int, s: Array) -> tuple[Array, Array]:
    """Lagrange polynomials and their derivatives at ``s``, ``[n, degree + 1]`` each."""
    nodes = LINE[degree]
    values = np.stack([np.prod([(s - b) / (a - b) for b in nodes if b != a], axis=0) for a in nodes], axis=-1)
    if degree == 1:
        return values, np.broadcast_to(np.array([-0.5, 0.5]), values.shape)
    return values, np.stack([s - 0.5, -2 * s, s + 0.5], axis=-1)


def shapes(degree: int, s: Array, t: Array) -> tuple[Array, Array]:
    """Functions of an element at points of its square, ``[n, k]``, and their gradients, ``[n, k, 2]``."""
    (a, da), (b, db) = lagrange(degree, s), lagrange(degree, t)
    n = len(s)
    gradient = [(da[:, :, None] * b[:, None]).reshape(n, -1), (a[:, :, None] * db[:, None]).reshape(n, -1)]
    return (a[:, :, None] * b[:, None]).reshape(n, -1), np.stack(gradient, axis=-1)


class Channel:
    """Biquadratic elements around the cylinder, up to the square of side 4.1 around it, and behind it.

    Args:
        along: elements along a side of the square.
        across: from the cylinder to the square, closer to each other at the cylinder.
        behind: between the square and the outlet.

    Attributes:
        x: nodes, ``[N, 2]``.
        elements: their nodes, ``[E, 9]``.
        corners: of every element, as numbers of pressures, ``[E, 4]``.
    """

    def __init__(self, along: int, across: int, behind: int) -> None:
        self.along, self.across, self.behind = along, across, behind
        side, depth = 2 * along, 2 * across
        # Around the square against the clock from its lower right corner; the last node is the first.
        perimeter, radial = np.arange(4 * side), np.linspace(0, 1, depth + 1)
        ring = self._ring(perimeter / side, radial)
        stream = np.linspace(0, 1, 2 * behind + 1)[1:]
        x, y = HEIGHT + (LENGTH - HEIGHT) * stream**1.3, np.linspace(0, HEIGHT, side + 1)
        tail = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1)
        numbers = np.arange(4 * side * (depth + 1)).reshape(4 * side, depth + 1)
        more = numbers.size + np.arange(tail.size // 2).reshape(2 * behind, side + 1)
        around = np.concatenate([numbers, numbers[:1]])
        after = np.concatenate([numbers[: side + 1, -1][None], more])
        self.x = np.concatenate([ring.reshape(-1, 2), tail.reshape(-1, 2)])
        self.elements = np.concatenate([_ninths(around[:, ::-1]), _ninths(after)])
        used, numbered = np.unique(self.elements[:, [0, 2, 6, 8]], return_inverse=True)
        self.corners, self.pressures = numbered.reshape(-1, 4), len(used)
        self.cylinder = numbers[:, 0]

    def _ring(self, around: Array, radial: Array) -> Array:
        """Nodes between cylinder and square, ``[n, m, 2]``; ``around`` counts sides."""
        corners = np.array([[HEIGHT, 0], [HEIGHT, HEIGHT], [0, HEIGHT], [0, 0], [HEIGHT, 0]])
        k = around.astype(int)
        outer = corners[k] + (around - k)[:, None] * (corners[k + 1] - corners[k])
        ray = outer - CENTRE
        inner = CENTRE + RADIUS * ray / np.hypot(*ray.T)[:, None]
        nodes: Array = inner[:, None] + graded(radial)[:, None] * (outer - inner)[:, None]
        return nodes

    def locate(self, points: Array) -> tuple[NDArray[np.int_], Array]:
        """The elements that points lie in, and their places in the squares of these, ``[n, 2]``."""
        ray = points - CENTRE
        reach = np.where(ray > 0, HEIGHT - CENTRE, CENTRE) / np.maximum(abs(ray), 1e-300)
        outer = CENTRE + ray * reach.min(1)[:, None]
        x, y = np.clip(outer, 0, HEIGHT).T
        on = [abs(x - HEIGHT) < 1e-9, abs(y - HEIGHT) < 1e-9, abs(x) < 1e-9]
        around = np.select(on, [y / HEIGHT, 2 - x / HEIGHT, 3 - y / HEIGHT], 3 + x / HEIGHT)
        far = np.hypot(*(outer - CENTRE).T)
        radial = np.clip((np.hypot(*ray.T) - RADIUS) / (far - RADIUS), 0, 1)
        level = np.interp(radial, graded(np.linspace(0, 1, 4001)), np.linspace(0, 1, 4001))
        i = np.minimum((around * self.along).astype(int), 4 * self.along - 1)
        j = np.minimum(((1 - level) * self.across).astype(int), self.across - 1)
        element = i * self.across + j
        behind = points[:, 0] > HEIGHT
        share = np.clip((points[:, 0] - HEIGHT) / (LENGTH - HEIGHT), 0, 1) ** (1 / 1.3)
        i = np.minimum((share * self.behind).astype(int), self.behind - 1)
        j = np.minimum((points[:, 1] / HEIGHT * self.along).astype(int), self.along - 1)
        element = np.where(behind, 4 * self.along * self.across + i * self.along + j, element)
        place = np.zeros_like(points)
        for _ in range(20):
            values, gradients = shapes(2, *place.T)
            nodes = self.x[self.elements[element]]
            missing = points - np.einsum("nk,nkd->nd", values, nodes)
            place = place + np.linalg.solve(np.einsum("nks,nkd->nds", gradients, nodes), missing[..., None])[..., 0]
        if abs(place).max() > 1.01 or abs(missing).max() > 1e-9:
            raise SystemExit("cylinder: a point lies in no element")
        return element, place


def graded(s: Array) -> Array:
    """Closer to each other at the start."""
    result: Array = np.expm1(2 * s) / np.expm1(2)
    return result


def _ninths(numbers: NDArray[np.int_]) -> NDArray[np.int_]:
    """The elements of a grid of nodes, ``[E, 9]``."""
    n, m = (numbers.shape[0] - 1) // 2, (numbers.shape[1] - 1) // 2
    i, j = 2 * np.arange(n)[:, None, None, None], 2 * np.arange(m)[:, None, None]
    return numbers[i + np.arange(3)[:, None], j + np.arange(3)].reshape(-1, 9)


class Flow:
    """The steady flow in a channel by Taylor and Hood's elements and Newton's method."""

    def __init__(self, channel: Channel, reynolds: float) -> None:
        self.channel, self.reynolds = channel, reynolds
        s, t = (each.ravel() for each in np.meshgrid(GAUSS, GAUSS, indexing="ij"))
        self._N, gradients = shapes(2, s, t)
        self._M = shapes(1, s, t)[0]
        mapping = np.einsum("qks,ekd->eqds", gradients, channel.x[channel.elements])
        self._B = np.einsum("qks,eqsd->eqkd", gradients, np.linalg.inv(mapping))
        determinant = np.linalg.det(mapping)
        if determinant.min() <= 0:
            raise SystemExit("cylinder: an element is turned over")
        self._w = determinant * np.outer(GAUSS_WEIGHTS, GAUSS_WEIGHTS).ravel()
        self._solve()

    def _solve(self) -> None:
        x, n = self.channel.x, len(self.channel.x)
        inlet, walls = x[:, 0] == 0, (x[:, 1] == 0) | (x[:, 1] == HEIGHT)
        held = inlet | walls
        held[self.channel.cylinder] = True
        velocity, pressure = np.zeros((n, 2)), np.zeros(self.channel.pressures)
        velocity[inlet, 0] = 6 * x[inlet, 1] * (HEIGHT - x[inlet, 1]) / HEIGHT**2
        free = np.flatnonzero(np.concatenate([~held, ~held, np.ones(len(pressure), dtype=bool)]))
        for step in range(15):
            residual, jacobian = self._assemble(velocity, pressure, convection=step > 0)
            change = splu(jacobian[free][:, free].tocsc()).solve(-residual[free])
            flat = np.concatenate([velocity.T.ravel(), pressure])
            flat[free] += change
            velocity, pressure = flat[: 2 * n].reshape(2, n).T, flat[2 * n :]
            if step > 1 and abs(change).max() < 1e-10:
                break
        else:
            raise SystemExit("cylinder: Newton's method has not converged")
        self.velocity, self.pressure = velocity, pressure
        force = -self._assemble(velocity, pressure, True)[0][: 2 * n].reshape(2, n)[:, self.channel.cylinder].sum(1)
        self.drag, self.lift = (2 * force).tolist()

    def _assemble(self, velocity: Array, pressure: Array, convection: bool) -> tuple[Array, sp.csr_matrix]:
        """The weak form's residual and Jacobian; unknowns are all u, all v and all p."""
        N, M, B, w, nu = self._N, self._M, self._B, self._w, 1 / self.reynolds
        elements, corners, n = self.channel.elements, self.channel.corners, len(velocity)
        own = velocity[elements]
        u = np.einsum("qk,ekc->eqc", N, own) * convection
        gradient = np.einsum("eqkd,ekc->eqcd", B, own)
        p = pressure[corners] @ M.T
        carried = np.einsum("eqd,eqkd->eqk", u, B)
        momentum = np.einsum("eq,qk,eqc->ekc", w, N, np.einsum("eqd,eqcd->eqc", u, gradient))
        momentum += nu * np.einsum("eq,eqkd,eqcd->ekc", w, B, gradient) - np.einsum("eq,eq,eqkc->ekc", w, p, B)
        mass = -np.einsum("eq,qm,eqcc->em", w, M, gradient)
        residual = np.zeros(2 * n + len(pressure))
        for c in (0, 1):
            np.add.at(residual, elements + c * n, momentum[..., c])
        np.add.at(residual, corners + 2 * n, mass)
        both = np.einsum("eq,qi,eqj->eij", w, N, carried) + nu * np.einsum("eq,eqid,eqjd->eij", w, B, B)
        cross = np.einsum("eq,qi,qj,eqcd->ecdij", w, N, N, gradient, optimize=True) * convection
        divergence = -np.einsum("eq,qm,eqjc->ecmj", w, M, B)
        rows, columns, entries = [], [], []

        def add(first: NDArray[np.int_], second: NDArray[np.int_], block: Array) -> None:
            rows.append(np.broadcast_to(first[:, :, None], block.shape).ravel())
            columns.append(np.broadcast_to(second[:, None, :], block.shape).ravel())
            entries.append(block.ravel())

        for c in (0, 1):
            for d in (0, 1):
                add(elements + c * n, elements + d * n, cross[:, c, d] + (both if c == d else 0))
            add(corners + 2 * n, elements + c * n, divergence[:, c])
            add(elements + c * n, corners + 2 * n, divergence[:, c].transpose(0, 2, 1))
        size = len(residual)
        triples = (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns)))
        return residual, sp.coo_matrix(triples, shape=(size, size)).tocsr()

    def at(self, points: Array) -> Array:
        """u, v and p at points, ``[n, 3]``."""
        element, place = self.channel.locate(points)
        velocity = np.einsum("nk,nkc->nc", shapes(2, *place.T)[0], self.velocity[self.channel.elements[element]])
        pressure = np.einsum("nk,nk->n", shapes(1, *place.T)[0], self.pressure[self.channel.corners[element]])
        return np.concatenate([velocity, pressure[:, None]], axis=1)


def cylinder() -> dict[str, Array]:
    """Steady flow at Re = 20 past the cylinder of diameter 1 around (2, 2) in [0, 22] x [0, 4.1]."""
    tolerance = 3e-3  # of the pressure, which is bilinear; that of the velocity is 5e-4
    x, y = np.linspace(0, LENGTH, 221), np.linspace(0, HEIGHT, 42)
    points = np.stack([each.ravel() for each in np.meshgrid(x, y, indexing="ij")], axis=1)
    inside = np.hypot(*(points - CENTRE).T) >= RADIUS - 1e-9
    coarse, fine = (Flow(Channel(k, k, 2 * k), REYNOLDS) for k in (20, 32))
    first, second = coarse.at(points[inside]), fine.at(points[inside])
    print(f"  drag {coarse.drag:.6f}, {fine.drag:.6f}; lift {coarse.lift:.7f}, {fine.lift:.7f}")
    for k, (field, order) in enumerate({"u": 3, "v": 3, "p": 2}.items()):
        difference, ratio = first[:, k] - second[:, k], (32 / 20) ** order - 1
        largest, size = float(abs(difference).max()), float(np.linalg.norm(second[:, k]))
        check(f"{field}: what is left of the difference between 20 and 32 elements", largest / ratio, tolerance)
        check("the same relative to the field, in L2", float(np.linalg.norm(difference)) / size / ratio, 1e-3)
    check("drag coefficient against the literature", abs(fine.drag / DRAG - 1), 1e-4)
    check("lift coefficient against the literature", abs(fine.lift / LIFT - 1), 1e-3)
    ends = fine.at(CENTRE + np.array([[-RADIUS, 0.0], [RADIUS, 0.0]]))
    check("pressure difference against the literature", abs((ends[0, 2] - ends[1, 2]) * 0.04 / 0.11752016697 - 1), 1e-3)
    values = np.full((len(points), 3), np.nan)
    values[inside] = second
    return {"x": x, "y": y, "values": values.reshape(len(x), len(y), 3), "tolerance": np.array(tolerance)}


def main() -> None:
    """Compute, check and write."""
    problems = {"poisson_l": poisson_l, "cylinder": cylinder}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*problems, []], default=list(problems), metavar="NAME")
    for name in parser.parse_args().names:
        print(f"{name}:")
        np.savez_compressed(DATA / f"{name}.npz", **problems[name]())


if __name__ == "__main__":
    main()
