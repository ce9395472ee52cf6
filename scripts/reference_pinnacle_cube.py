"""Compute the reference solution of ``poisson3d_cg`` in ``scripts/pinnacle`` and check it against its own equations.

    python scripts/reference_pinnacle_cube.py

The solution is that of the whole cube, cosines of x and y times Chebyshev polynomials of z on either side of the jump,
and functions that solve the equation without a source in one of the two materials and make up for the balls: k_l(k r)
Y_lm about their centres, reflected in the sides of the cube, and waves that decay from the sides. What conditions at
balls, sides and the interface say of these, they satisfy by least squares, which is checked at other points; solutions
with fewer functions say how far the result may be off.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from pinnacle.poisson3d_cg import BALLS, Poisson3dCg
from scipy import fft, linalg, special

Array = NDArray[np.float64]

SCREENING = (8.0, 10.0)  # below and above MIDDLE
MIDDLE = 0.5
COSINES = (48, 160)  # along x and y
POINTS = 33  # of Chebyshev in each half along z
LOBATTO = np.cos(np.pi * np.arange(POINTS) / (POINTS - 1))
BARYCENTRIC = np.r_[0.5, np.ones(POINTS - 2), 0.5] * (-1.0) ** np.arange(POINTS)
HEIGHTS = np.concatenate([0.25 + LOBATTO / 4, 0.75 + LOBATTO / 4])  # from high to low, twice
MEMBERS = ((0, 1, 3), (0, 1, 2))  # the balls that are seen from below and above
FLUX = 10.0  # unit of normal derivatives
STEP = 2e-5  # of differences


def check(what: str, difference: float, bound: float) -> None:
    """Print a difference; stop where it exceeds its bound."""
    print(f"  {what}: {difference:.1e} (bound {bound:.0e})", flush=True)
    if not difference <= bound:
        raise SystemExit(f"{what}: {difference:.1e} exceeds {bound:.0e}")


def cube_modes() -> Array:
    """Values at HEIGHTS of the factor of every cos(pi a x) cos(pi b y), without balls, [a, b, heights]."""
    mids = [(np.arange(n) + 0.5) / n for n in COSINES]
    grid = [torch.from_numpy(c).ravel() for c in np.meshgrid(*mids, HEIGHTS, indexing="ij")]
    source = Poisson3dCg().source(SimpleNamespace(x=grid[0], y=grid[1], z=grid[2])).numpy()
    source = fft.dctn(source.reshape(*COSINES, -1), axes=(0, 1)) / np.prod(COSINES)
    source[0] /= 2
    source[:, 0] /= 2
    with np.errstate(divide="ignore"):
        first = np.outer(1 / BARYCENTRIC, BARYCENTRIC) / (LOBATTO[:, None] - LOBATTO)
    first[np.diag_indices(POINTS)] = 0
    first[np.diag_indices(POINTS)] = -first.sum(1)
    first *= 4  # of an interval of length 1/2
    modes = np.empty_like(source)
    for a in range(COSINES[0]):
        rates = np.pi**2 * (a**2 + np.arange(COSINES[1]) ** 2)
        matrix = np.zeros((COSINES[1], 2 * POINTS, 2 * POINTS))
        for part, k in enumerate(SCREENING):
            places = np.s_[part * POINTS : (part + 1) * POINTS]
            matrix[:, places, places] = (rates[:, None, None] + k**2) * np.eye(POINTS) - first @ first
        right = source[a].copy()
        # The interface is at the first node of the lower half and at the last of the upper one.
        rows = top_of_lower, bottom, top, bottom_of_upper = 0, POINTS - 1, POINTS, 2 * POINTS - 1
        right[:, rows] = 0
        matrix[:, rows] = 0
        matrix[:, top_of_lower, top_of_lower], matrix[:, top_of_lower, bottom_of_upper] = 1, -1
        matrix[:, bottom_of_upper, :POINTS], matrix[:, bottom_of_upper, POINTS:] = first[0], -first[-1]
        matrix[:, bottom, :POINTS] = first[-1]
        matrix[:, top, POINTS:] = first[0]
        modes[a] = np.linalg.solve(matrix, right[..., None])[..., 0]
    return modes


def along_z(z: Array) -> Array:
    """Weights of the values at HEIGHTS, by the barycentric formula, [N, heights]."""
    weights = np.zeros((len(z), 2 * POINTS))
    for part, chosen in enumerate((z < MIDDLE, z >= MIDDLE)):
        places = np.s_[part * POINTS : (part + 1) * POINTS]
        distance = z[chosen, None] - HEIGHTS[places]
        at_node = distance == 0
        terms = BARYCENTRIC / np.where(at_node, 1, distance)
        terms /= terms.sum(1, keepdims=True)
        weights[chosen, places] = np.where(at_node.any(1, keepdims=True), at_node, terms)
    return weights


def whole_cube(modes: Array, x: Array) -> Array:
    """The solution without balls at points, [N, 3]."""
    values = np.empty(len(x))
    for i in range(0, len(x), 256):
        part = x[i : i + 256]
        along_x, along_y = (np.cos(np.pi * np.outer(part[:, c], np.arange(n))) for c, n in enumerate(COSINES))
        left = np.einsum("nb,nz->nbz", along_y, along_z(part[:, 2])).reshape(len(part), -1)
        values[i : i + 256] = np.einsum("nk,nk->n", along_x @ modes.reshape(COSINES[0], -1), left)
    return values


def multipoles(x: Array, ball: int, part: int, order: int) -> Array:
    """k_l(k r) Y_lm about a ball's centre for l below the order, of size 1 at the ball, with images, [order^2, N]."""
    (centre, radius), k = BALLS[ball], SCREENING[part]
    total = np.zeros((order**2, len(x)))
    sides = [(x[:, c], -x[:, c], 2 - x[:, c]) for c in (0, 1)]
    for reflected in itertools.product(*sides, (x[:, 2], -x[:, 2] if part == 0 else 2 - x[:, 2])):
        d = np.stack(reflected, axis=1) - np.array(centre)
        r = np.linalg.norm(d, axis=1)
        angle, height = np.arctan2(d[:, 1], d[:, 0]), d[:, 2] / r
        radial = _bessel(r, k, order, radius) / _bessel(np.array([radius]), k, order, radius)
        for m in range(order):
            for degree in range(m, order):
                norm = math.sqrt(math.factorial(degree - m) / math.factorial(degree + m))
                value = special.lpmv(m, degree, height) * norm * radial[degree]
                total[degree**2 + 2 * m] += value * np.cos(m * angle)
                if m:
                    total[degree**2 + 2 * m - 1] += value * np.sin(m * angle)
    return total


def _bessel(r: Array, k: float, order: int, radius: float) -> Array:
    """Modified spherical Bessel functions of the second kind times exp(k radius), by recurrence, [order, N]."""
    values = [np.exp(-k * (r - radius)) / r]
    values.append(values[0] * (1 + 1 / (k * r)))
    for degree in range(1, order - 1):
        values.append(values[degree - 1] + (2 * degree + 1) / (k * r) * values[degree])
    return np.stack(values)


def waves(x: Array, part: int, many: int, few: int) -> Array:
    """Cosines along two axes times exponentials that decay from either side along the third, [functions, N]."""
    lengths = (1.0, 1.0, MIDDLE)
    scaled = (x[:, 0], x[:, 1], (x[:, 2] - part * MIDDLE) / MIDDLE)
    columns = []
    for axis in range(3):
        u, v = (c for c in range(3) if c != axis)
        for i, j in itertools.product(range(many if axis == 2 else few), repeat=2):
            rate = math.hypot(SCREENING[part], math.pi * i / lengths[u], math.pi * j / lengths[v]) * lengths[axis]
            plane = np.cos(np.pi * i * scaled[u]) * np.cos(np.pi * j * scaled[v])
            columns += [plane * np.exp(-rate * scaled[axis]), plane * np.exp(-rate * (1 - scaled[axis]))]
    return np.stack(columns)


class Fit:
    """What makes up for the balls.

    Args:
        modes: the solution without balls.
        order: degrees l of multipoles below this.
        many, few: cosines along each axis of waves from interface, bottom and top, and from the other sides.
    """

    def __init__(self, modes: Array, order: int, many: int, few: int) -> None:
        self._modes, self._order, self._many, self._few = modes, order, many, few
        self._sizes = [self._basis(np.full((1, 3), 0.45), part).shape[0] for part in (0, 1)]
        matrix, given = self._conditions(seed=0, density=1.0)
        size = abs(matrix).max(0)
        self._factors = linalg.lstsq(matrix / size, given, cond=1e-12, lapack_driver="gelsy")[0] / size

    def misfit(self) -> float:
        """Root mean square over other points of balls, interface and sides, fluxes in units of FLUX."""
        matrix, given = self._conditions(seed=1, density=0.3)
        return float(np.sqrt(np.mean((matrix @ self._factors - given) ** 2)))

    def __call__(self, x: Array) -> Array:
        """The solution at points, [N, 3]."""
        values = whole_cube(self._modes, x)
        for part, chosen in enumerate((x[:, 2] < MIDDLE, x[:, 2] >= MIDDLE)):
            own = np.split(self._factors, [self._sizes[0]])[part]
            values[chosen] += own @ self._basis(x[chosen], part)
        return values

    def _basis(self, x: Array, part: int) -> Array:
        own = [multipoles(x, ball, part, self._order) for ball in MEMBERS[part]]
        return np.concatenate([*own, waves(x, part, self._many, self._few)])

    def _rows(self, x: Array, normal: Array | None, signs: tuple[int, int]) -> Array:
        """Values, or normal derivatives in units of FLUX, of all functions, those of each material with a sign."""
        parts = []
        for part, sign in enumerate(signs):
            if sign == 0:
                values = np.zeros((self._sizes[part], len(x)))
            elif normal is None:
                values = self._basis(x, part)
            else:
                values = self._basis(x + STEP * normal, part) - self._basis(x - STEP * normal, part)
                values /= 2 * STEP * FLUX
            parts.append(sign * values)
        return np.concatenate(parts).T

    def _conditions(self, seed: int, density: float) -> tuple[Array, Array]:
        """The matrix and the right-hand side at points of balls, interface and sides."""
        generator = np.random.default_rng(seed)
        matrices, given = [], []

        def put(x: Array, normal: Array, flux: Array) -> None:
            for signs, chosen in (((1, 0), x[:, 2] < MIDDLE), ((0, 1), x[:, 2] >= MIDDLE)):
                if chosen.any():
                    matrices.append(self._rows(x[chosen], np.broadcast_to(normal, x.shape)[chosen], signs))
                    given.append(flux[chosen])

        for centre, radius in BALLS:
            n = int(density * 4500 * radius)
            height, angle = 1 - 2 * (np.arange(n) + 0.5) / n, np.pi * (1 + 5**0.5) * np.arange(n) + seed
            ring = np.sqrt(1 - height**2)
            normal = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)
            x = np.array(centre) + radius * normal
            ends = [whole_cube(self._modes, x + sign * STEP * normal) for sign in (1, -1)]
            put(x, normal, -(ends[0] - ends[1]) / (2 * STEP * FLUX))
        plane = np.concatenate(
            [generator.uniform(size=(int(density * 1500), 2)), np.full((int(density * 1500), 1), MIDDLE)], 1
        )
        plane = plane[outside(plane)]
        for normal in (None, np.array([[0.0, 0.0, 1.0]])):
            matrices.append(self._rows(plane, normal, (1, -1)))
            given.append(np.zeros(len(plane)))
        for axis, end in itertools.product(range(3), (0.0, 1.0)):
            x = generator.uniform(size=(int(density * 250), 3))
            x[:, axis] = end
            put(x, np.eye(3)[None, axis], np.zeros(len(x)))
        return np.concatenate(matrices), np.concatenate(given)


def outside(x: Array) -> NDArray[np.bool_]:
    """Which points lie outside of the balls, or on them."""
    result: NDArray[np.bool_] = np.all(
        [np.linalg.norm(x - np.array(centre), axis=1) >= radius * (1 - 1e-9) for centre, radius in BALLS], axis=0
    )
    return result


def main() -> None:
    """Make the file."""
    modes = cube_modes()
    probe, step = np.array([[0.3, 0.6, 0.2], [0.8, 0.45, 0.8], [0.5, 0.5, 0.9]]), 1e-3
    around = sum(whole_cube(modes, probe + sign * step * e) for e in np.eye(3) for sign in (1, -1))
    laplacian = (around - 6 * whole_cube(modes, probe)) / step**2
    source = Poisson3dCg().source(SimpleNamespace(**dict(zip("xyz", torch.from_numpy(probe).T, strict=True)))).numpy()
    screening = np.where(probe[:, 2] < MIDDLE, *np.square(SCREENING))
    difference = abs(screening * whole_cube(modes, probe) - laplacian - source).max() / abs(source).max()
    check("the whole cube, equation by differences", difference, 1e-3)
    solution = Fit(modes, 16, 14, 6)
    check("balls, interface and sides, root mean square", solution.misfit(), 1e-3)
    axis = np.linspace(0, 1, 25)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = outside(nodes)
    values = np.full(len(nodes), np.nan)
    values[inside] = solution(nodes[inside])
    fewer = Fit(modes, 13, 11, 5)(nodes[inside])
    difference = np.linalg.norm(fewer - values[inside]) / np.linalg.norm(values[inside])
    check("fewer functions, relative", difference, 1e-3)
    file = Path(__file__).parent / "pinnacle" / "poisson3d_cg.npz"
    np.savez_compressed(file, x=axis, y=axis, z=axis, values=values.reshape(25, 25, 25, 1))


if __name__ == "__main__":
    main()
