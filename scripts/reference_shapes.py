"""Compute the reference solutions on shapes in ``ntkrun/pde/data`` and check each against a second method.

    python scripts/reference_shapes.py [poisson_l] [cylinder]

The flow past a cylinder needs scikit-fem, ``pip install 'ntkrun[references]'``.

Each file holds the grid's axes by letter, ``values`` of shape ``[*grid, fields]``, NaN outside of the shape, and
``tolerance``, a bound on their absolute error; the script prints what establishes it and stops where it fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path
from typing import Any

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


# Flow past a cylinder ----------------------------------------------------------------------------------------

LENGTH, HEIGHT, RADIUS, VISCOSITY = 2.2, 0.41, 0.05, 1e-3  # the DFG benchmark 2D-1, with mean inflow 0.2
MIDDLE = np.array([0.2, 0.2])
DRAG, LIFT, DROP = 5.57953523384, 0.010618948146, 0.11752016697  # John, Matthies 2001; Nabh 1998


class Channel:
    """Steady Navier-Stokes equations by Taylor-Hood elements of order 2 and 1 on triangles, and Newton's method.

    The mesh is a ring of quadrilaterals around the cylinder, which gets coarser outwards to the walls, and rows of
    them downstream, all halved; edges on the cylinder are bent. Forces are those of the residual tested with a function
    that is 1 on the cylinder, which converge twice as fast as stresses integrated along it.

    Args:
        fineness: edges per side of the square about the cylinder.
    """

    def __init__(self, fineness: int) -> None:
        import skfem
        from skfem.helpers import ddot, div, dot, grad

        straight = skfem.MeshTri(*_triangles(fineness))

        class Bent(skfem.MeshTri2):  # type: ignore[misc]
            """Triangles that are found by their corners, for all of the flow lies within straight ones."""

            def element_finder(self, mapping: Any = None) -> Any:
                return straight.element_finder()

        curved = Bent.from_mesh(straight)
        at_cylinder = straight.facets_satisfying(
            lambda x: np.hypot(*(x.T - MIDDLE).T) < 1.01 * RADIUS, boundaries_only=True
        )
        places = curved.dofs.get_facet_dofs(at_cylinder).flatten()
        ray = curved.doflocs[:, places] - MIDDLE[:, None]
        doflocs = curved.doflocs.copy()
        doflocs[:, places] = MIDDLE[:, None] + RADIUS * ray / np.hypot(*ray)
        mesh = dataclasses.replace(curved, doflocs=doflocs)
        velocity = skfem.Basis(mesh, skfem.ElementVector(skfem.ElementTriP2()), intorder=6)
        pressure = velocity.with_element(skfem.ElementTriP1())

        @skfem.BilinearForm
        def viscous(u: Any, v: Any, _: Any) -> Any:
            return VISCOSITY * ddot(grad(u), grad(v))

        @skfem.BilinearForm
        def divergence(u: Any, q: Any, _: Any) -> Any:
            return -div(u) * q

        @skfem.BilinearForm
        def convective(u: Any, v: Any, w: Any) -> Any:
            return dot(_along(w["now"], u) + _along(u, w["now"]), v)

        @skfem.LinearForm
        def convection(v: Any, w: Any) -> Any:
            return dot(_along(w["now"], w["now"]), v)

        a, b = viscous.assemble(velocity), divergence.assemble(velocity, pressure)
        inner = velocity.get_dofs(at_cylinder)
        inflow = velocity.get_dofs(lambda x: x[0] < 1e-9)
        walls = velocity.get_dofs(lambda x: (x[1] < 1e-9) | (x[1] > HEIGHT - 1e-9))
        fixed = np.unique(np.concatenate([each.all() for each in (inner, inflow, walls)]))
        n = velocity.N
        state = np.zeros(n + pressure.N)
        of_x = inflow.all("u^1")
        y = velocity.doflocs[1, of_x]
        state[of_x] = 4 * 0.3 * y * (HEIGHT - y) / HEIGHT**2
        for _ in range(20):
            now = velocity.interpolate(state[:n])
            residual = np.concatenate(
                [a @ state[:n] + convection.assemble(velocity, now=now) + b.T @ state[n:], b @ state[:n]]
            )
            matrix = skfem.bmat([[a + convective.assemble(velocity, now=now), b.T], [b, None]], "csr")
            step = skfem.solve(*skfem.condense(matrix, -residual, D=fixed, x=np.zeros_like(state)))
            state += step
            if abs(step).max() < 1e-12:
                break
        else:
            raise SystemExit("Newton's method did not converge")
        now = velocity.interpolate(state[:n])
        forces = a @ state[:n] + convection.assemble(velocity, now=now) + b.T @ state[n:]
        scale = -2 / (0.2**2 * 2 * RADIUS)
        self.drag, self.lift = (scale * forces[inner.all(component)].sum() for component in ("u^1", "u^2"))
        self._parts = (velocity, state[:n]), (pressure, state[n:])
        ends = self(np.array([[0.15, 0.25], [0.2, 0.2]]))[:, 2]
        self.drop = ends[0] - ends[1]

    def __call__(self, points: Array) -> Array:
        """u, v and p at points ``[2, N]``, as ``[N, 3]``."""
        (velocity, w), (pressure, p) = self._parts
        found: Array = np.stack([*(velocity.probes(points) @ w).reshape(2, -1), pressure.probes(points) @ p], axis=1)
        return found


def _along(u: Any, v: Any) -> Any:
    """(u . grad) v."""
    return np.einsum("j...,ij...->i...", u.value, v.grad)


def _triangles(fineness: int) -> tuple[Array, NDArray[np.int64]]:
    """Vertices and triangles of the channel."""
    side = np.linspace(0, HEIGHT, fineness + 1)
    around = np.concatenate(
        [
            np.stack([np.full(fineness, HEIGHT), side[:-1]]),
            np.stack([side[:0:-1], np.full(fineness, HEIGHT)]),
            np.stack([np.zeros(fineness), side[:0:-1]]),
            np.stack([side[:-1], np.zeros(fineness)]),
        ],
        axis=1,
    )
    ray = around - MIDDLE[:, None]
    circle = MIDDLE[:, None] + RADIUS * ray / np.hypot(*ray)
    s = np.linspace(0, 1, fineness + 1)
    outwards = (np.exp(2 * s) - 1) / (np.exp(2) - 1)
    ring = circle[:, None] + (around - circle)[:, None] * outwards[:, None]  # [2, layer, around]
    count = 3 * fineness
    along = np.linspace(0, 1, count + 1)
    x = HEIGHT + (LENGTH - HEIGHT) * (along + along**2) / 2
    downstream = np.stack(np.meshgrid(x, side, indexing="ij"))
    corners = []
    for block, closed in ((ring, True), (downstream, False)):
        a = np.concatenate([block, block[:, :, :1]], axis=2) if closed else block
        corners.append(
            np.stack([a[:, :-1, :-1], a[:, 1:, :-1], a[:, 1:, 1:], a[:, :-1, 1:]], axis=-1).reshape(2, -1, 4)
        )
    quads = np.concatenate(corners, axis=1)
    keys, index = np.unique(np.round(quads.reshape(2, -1).T, 12), axis=0, return_inverse=True)
    index = index.reshape(-1, 4)
    triangles = np.concatenate([index[:, [0, 1, 2]], index[:, [0, 2, 3]]])
    return np.ascontiguousarray(keys.T), np.ascontiguousarray(triangles.T)


def cylinder() -> dict[str, Array]:
    """Flow past a cylinder in a channel at Re = 20."""
    tolerance = 1e-4
    coarse, fine = Channel(16), Channel(32)
    print(f"  drag {fine.drag:.6f}, lift {fine.lift:.6f}, pressure drop {fine.drop:.7f}")
    check("drag against 5.579535", abs(fine.drag / DRAG - 1), 1e-4)
    check("lift against 0.010619", abs(fine.lift / LIFT - 1), 1e-2)
    check("pressure drop against 0.117520", abs(fine.drop / DROP - 1), 1e-3)
    x, y = np.linspace(0, LENGTH, 111), np.linspace(0, HEIGHT, 42)
    grid = np.stack([each.ravel() for each in np.meshgrid(x, y, indexing="ij")])
    inside = np.hypot(*(grid.T - MIDDLE).T) > RADIUS + 1e-9
    values = np.full((grid.shape[1], 3), np.nan)
    values[inside] = fine(grid[:, inside])
    check("with half as many edges, of 0.3", float(abs(coarse(grid[:, inside]) - values[inside]).max()), 10 * tolerance)
    return {
        "x": x,
        "y": y,
        "values": values.reshape(len(x), len(y), 3),
        "tolerance": np.array(tolerance),
        "forces": np.array([fine.drag, fine.lift, fine.drop]),
    }


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
