"""Compute the reference solutions of problems in ``scripts/pinnacle`` and check each against its own equations.

    python scripts/reference_pinnacle.py [poisson2d_c] [poisson2d_cg] [heat2d_cg] [heat2d_vc] [heat2d_lt]
        [poisson2d_ms]

Each file holds the grid's axes by letter and ``values`` of shape ``[*grid, 1]``, NaN outside of the shape. Solutions
are sums of functions that satisfy the equation exactly (Trefftz's method) and fit the conditions at the boundary by
least squares: what is left there bounds the error inside by the maximum principle. Stops where a bound is exceeded.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from pinnacle.heat2d_vc import Heat2dVc
from pinnacle.poisson2d_ms import Poisson2dMs
from scipy import sparse, special
from scipy.sparse import linalg as sparse_linalg

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Disc = tuple[complex, float]

DATA = Path(__file__).parent / "pinnacle"


def check(what: str, difference: float, bound: float) -> None:
    """Print a difference; stop where it exceeds its bound."""
    print(f"  {what}: {difference:.1e} (bound {bound:.0e})", flush=True)
    if not difference <= bound:
        raise SystemExit(f"{what}: {difference:.1e} exceeds {bound:.0e}")


def circle(disc: Disc, count: int) -> Complex:
    """Equispaced points of a circle."""
    centre, radius = disc
    return centre + radius * np.exp(2j * np.pi * np.arange(count) / count)


def square(half: float, count: int) -> Complex:
    """Points of the sides of a square, closer to one another near its corners."""
    side = np.sin(np.linspace(-np.pi / 2, np.pi / 2, count))
    side = np.concatenate([side, 1 - np.geomspace(1e-9, 1e-2, count), np.geomspace(1e-9, 1e-2, count) - 1])
    return np.concatenate([half * (side + 1j) * 1j**k for k in range(4)])


def fit(basis: Callable[[Complex], Array], boundary: Complex, values: Array) -> Array:
    """The factors of the functions of a basis that fit values at the boundary, columns scaled to size 1."""
    matrix = basis(boundary)
    size = np.abs(matrix).max(0)
    factors: Array = np.linalg.lstsq(matrix / size, values, rcond=1e-14)[0] / size
    return factors


def on_grid(half: float, discs: Sequence[Disc], count: int, solution: Callable[[Complex], Array]) -> dict[str, Array]:
    """A solution at the nodes of a grid on a square without discs."""
    axis = np.linspace(-half, half, count)
    z = axis[:, None] + 1j * axis
    inside = np.all([abs(z - centre) >= radius for centre, radius in discs], axis=0)
    values = np.full((count, count, 1), np.nan)
    values[inside, 0] = solution(z[inside])
    return {"x": axis, "y": axis, "values": values}


def talbot(nodes: int) -> tuple[Complex, Complex]:
    """Half of the points z of a contour, and its slopes z', for the inverse Laplace transform.

    f(t) is the sum of Re(2 / (nodes i) exp(z) F(z / t) z' / t), for real f. Source: Trefethen, Weideman, Schmelzer, BIT
    46 (2006).
    """
    angle = np.pi * (2 * np.arange(nodes // 2) + 1) / nodes
    z = nodes * (0.5017 * angle / np.tan(0.6407 * angle) - 0.6122 + 0.2645j * angle)
    turned = 0.5017 / np.tan(0.6407 * angle) - 0.5017 * 0.6407 * angle / np.sin(0.6407 * angle) ** 2
    return z, nodes * (turned + 0.2645j)


def poisson2d_c() -> dict[str, Array]:
    """Laplace's equation: logarithms and negative powers about the discs, powers about the middle, all symmetric."""
    discs = [((0.3 + 0.3j) * 1j**k, 0.1) for k in range(4)]

    def basis(z: Complex, order: int) -> Array:
        local = [(z - centre) / 1j**k * np.exp(-0.25j * np.pi) / radius for k, (centre, radius) in enumerate(discs)]
        columns = [np.ones(z.shape), sum(np.log(abs(w)) for w in local)]
        columns += [sum((w**-n).real for w in local) for n in range(1, order)]
        columns += [((math.sqrt(2) * z) ** (4 * n)).real for n in range(1, order)]
        return np.stack(columns, axis=-1)

    def solve(order: int, count: int) -> Callable[[Complex], Array]:
        sides, rims = square(0.5, count), np.concatenate([circle(disc, count) for disc in discs])
        boundary, values = np.concatenate([sides, rims]), np.repeat([1.0, 0.0], [len(sides), len(rims)])
        factors = fit(lambda z: basis(z, order), boundary, values)
        return lambda z: basis(z, order) @ factors

    solution = solve(24, 150)
    check("poisson2d_c, u - 1 at the sides", abs(solution(square(0.5, 1013)) - 1).max(), 1e-9)
    check("poisson2d_c, u at the discs", abs(solution(np.concatenate([circle(d, 1013) for d in discs]))).max(), 1e-9)
    return on_grid(0.5, discs, 101, solution)


def poisson2d_cg() -> dict[str, Array]:
    """The Poisson-Boltzmann equation: a particular solution, K_n about the discs, K_0 about points beyond the sides.

    These points cluster at the corners, where second derivatives of the solution are not continuous.
    """
    discs = [(0.5 + 0.5j, 0.2), (0.4 - 0.4j, 0.4), (-0.2 - 0.7j, 0.1), (-0.6 + 0.5j, 0.3)]
    kappa, pi = 8.0, math.pi
    eigenvalue = 17 * pi**2 + kappa**2

    def particular(z: Complex) -> Array:
        # of the operator and x^2 S, y^2 S with S = sin(pi x) sin(4 pi y), by x cos(pi x) sin(4 pi y) and the like
        x, y = z.real, z.imag
        s = np.sin(pi * x) * np.sin(4 * pi * y)
        along_x = (x * np.cos(pi * x) * np.sin(4 * pi * y) - 2 * pi / eigenvalue * s) / eigenvalue
        along_y = (y * np.sin(pi * x) * np.cos(4 * pi * y) - 8 * pi / eigenvalue * s) / eigenvalue
        squares = (x**2 + y**2) * s + 4 / eigenvalue * s + 4 * pi * along_x + 16 * pi * along_y
        result: Array = 10 * (17 * s + squares) / eigenvalue
        return result

    step = 1e-3
    middle = np.array([0.05 + 0.1j, -0.3 - 0.1j, -0.7 - 0.6j])
    shifts = step * np.array([1, -1, 1j, -1j])
    laplacian = (particular(middle[:, None] + shifts).sum(1) - 4 * particular(middle)) / step**2
    source = 10 * (17 + abs(middle) ** 2) * np.sin(pi * middle.real) * np.sin(4 * pi * middle.imag)
    difference = abs(kappa**2 * particular(middle) - laplacian - source).max() / abs(source).max()
    check("poisson2d_cg, the particular solution by differences", difference, 1e-4)

    def basis(z: Complex, order: int, sources: Complex) -> Array:
        columns = []
        for centre, radius in discs:
            distance, angle = abs(z - centre), np.angle(z - centre)
            for n in range(order):
                values = special.kve(n, kappa * distance) * np.exp(-kappa * (distance - radius))
                columns += [values * np.cos(n * angle), values * np.sin(n * angle)][: 2 if n else 1]
        columns += [special.k0(kappa * abs(z - each)) for each in sources]
        return np.stack(columns, axis=-1)

    def solve(order: int, spread: int, count: int) -> Callable[[Complex], Array]:
        along = np.linspace(-1.2, 1.2, spread)
        clustered = np.geomspace(1e-6, 0.5, spread)
        sources = np.concatenate(
            [
                *[(1.25 + 1j * along) * 1j**k for k in range(4)],
                *[(1 + 1j + (1 + 1j) * clustered) * 1j**k for k in range(4)],
                *[(1 + 1j + 1j * clustered + 0.5 * clustered) * 1j**k for k in range(4)],
                *[(1 + 1j + clustered + 0.5j * clustered) * 1j**k for k in range(4)],
            ]
        )
        sides, rims = square(1.0, count), np.concatenate([circle(disc, count) for disc in discs])
        boundary, given = np.concatenate([sides, rims]), np.repeat([0.2, 1.0], [len(sides), len(rims)])
        factors = fit(lambda z: basis(z, order, sources), boundary, given - particular(boundary))
        return lambda z: basis(z, order, sources) @ factors + particular(z)

    solution = solve(24, 40, 250)
    check("poisson2d_cg, u - 0.2 at the sides", abs(solution(square(1.0, 1013)) - 0.2).max(), 1e-6)
    rims = np.concatenate([circle(disc, 1013) for disc in discs])
    check("poisson2d_cg, u - 1 at the discs", abs(solution(rims) - 1).max(), 1e-6)
    return on_grid(1.0, discs, 101, solution)


def heat2d_cg() -> dict[str, Array]:
    """Heat in a plate with holes, by its Laplace transform along Talbot's contour.

    s U = U_xx + U_yy is solved by K_n about the holes, and by cosines along one side times hyperbolic cosines along
    the other; all are even in x and y, as the plate is.
    """
    big = [(4 + 3j, 1.0, 5.0), (4 + 9j, 1.0, 5.0), (0j, 1.0, 5.0), (6j, 1.0, 5.0)]
    holes = [*big, (3.2 + 6j, 0.4, 1.0), (3.2 + 0j, 0.4, 1.0)]
    half = (8.0, 12.0)

    def basis(z: Complex, normal: Complex | None, root: complex, order: int, modes: int) -> Complex:
        """Functions at points, [N, functions]; with normals, their derivatives along these plus themselves."""
        columns = []
        for centre, radius, _ in holes:
            scale = special.kv(np.arange(order + 1), root * radius)
            total = np.zeros((2 * order + 1, len(z)), complex)
            for image in {centre, -centre, centre.conjugate(), -centre.conjugate()}:
                # cos and sin of n times the angle in the hole's own frame, turned over with the image
                x, y = (1 if image.real == centre.real else -1), (1 if image.imag == centre.imag else -1)
                local = x * (z - image).real + 1j * y * (z - image).imag
                r, turn = abs(local), local / abs(local)
                k = [special.kv(0, root * r), special.kv(1, root * r)]
                for n in range(1, order + 1):
                    k.append(k[n - 1] + 2 * n / (root * r) * k[n])
                for n in range(order + 1):
                    c, s = (turn**n).real, (turn**n).imag
                    value = [k[n] * c, k[n] * s]
                    if normal is not None:
                        along = (x * normal.real + 1j * y * normal.imag) * turn.conjugate()
                        k_r = -root * (k[n - 1] if n else k[1]) - (n / r * k[n] if n else 0)
                        slope = [
                            k_r * c * along.real - k[n] * n / r * s * along.imag,
                            k_r * s * along.real + k[n] * n / r * c * along.imag,
                        ]
                        value = [v + d for v, d in zip(value, slope, strict=True)]
                    total[2 * n] += value[0] / scale[n]
                    if n:
                        total[2 * n - 1] += value[1] / scale[n]
            columns += list(total)
        for first, (a, b) in enumerate([half, half[::-1]]):
            u, v = (z.real, z.imag) if first == 0 else (z.imag, z.real)
            for m in range(modes):
                wave = m * math.pi / (1.3 * a)
                rate = np.sqrt(root**2 + wave**2)
                even = (np.exp(rate * (v - b)) + np.exp(-rate * (v + b))) / 2
                odd = (np.exp(rate * (v - b)) - np.exp(-rate * (v + b))) / 2
                value = np.cos(wave * u) * even
                if normal is not None:
                    nu, nv = (normal.real, normal.imag) if first == 0 else (normal.imag, normal.real)
                    value = value - nu * wave * np.sin(wave * u) * even + nv * np.cos(wave * u) * rate * odd
                columns.append(value)
        return np.stack(columns, axis=-1)

    def boundary(count: int) -> tuple[Complex, Complex, Array]:
        """Points, outward normals and values of u + u_n at a quarter of the boundary."""
        turn = np.exp(2j * np.pi * np.arange(count) / count)
        points, normals, given = [], [], []
        for centre, radius, value in holes:
            points, normals = [*points, centre + radius * turn], [*normals, -turn]
            given += [value] * count
        side = np.sin(np.linspace(0, np.pi / 2, 2 * count))
        points += [half[0] + 1j * half[1] * side, half[0] * side + 1j * half[1]]
        normals += [np.ones(2 * count, complex), np.full(2 * count, 1j)]
        given += [0.1] * 4 * count
        return np.concatenate(points), np.concatenate(normals), np.array(given)

    axes = np.linspace(-half[0], half[0], 33), np.linspace(-half[1], half[1], 49), np.linspace(0, 3, 13)
    quarter = (axes[0][16:, None] + 1j * axes[1][24:]).ravel()
    inside = np.all([abs(quarter - centre) >= radius for centre, radius, _ in holes], axis=0)
    fitted, tested = boundary(64), boundary(101)

    step, (points, normals, _) = 1e-4, tested
    shifted = [basis(points + sign * step * normals, None, 2 + 1j, 4, 4) for sign in (1, -1)]
    slopes = basis(points, normals, 2 + 1j, 4, 4) - basis(points, None, 2 + 1j, 4, 4)
    check("heat2d_cg, normal derivatives by differences", abs(slopes - (shifted[0] - shifted[1]) / 2e-4).max(), 1e-5)

    def at(t: float, nodes: int) -> tuple[Array, float]:
        """The solution at a time, and the largest misfit of its transform at the boundary, each times s."""
        contour, slope = talbot(nodes)
        values, misfit = np.zeros(inside.sum()), 0.0
        for zeta, weight in zip(contour, slope, strict=True):
            root = np.sqrt(zeta / t)
            matrix = basis(fitted[0], fitted[1], root, 14, 40)
            size = abs(matrix).max(0)
            factors = np.linalg.lstsq(matrix / size, fitted[2].astype(complex), rcond=1e-13)[0] / size
            misfit = max(misfit, abs(basis(tested[0], tested[1], root, 14, 40) @ factors - tested[2]).max())
            transform = basis(quarter[inside], None, root, 14, 40) @ factors / zeta
            values += (2 / nodes) * (np.exp(zeta) * transform * weight / 1j).real
        return values, misfit

    values = np.full((len(quarter), len(axes[2])), np.nan)
    values[inside, 0] = 0
    worst = 0.0
    for i, t in enumerate(axes[2][1:], start=1):
        values[inside, i], misfit = at(t, 20)
        worst = max(worst, misfit)
    check("heat2d_cg, u + u_n at the boundary, transformed", worst, 1e-4)
    check("heat2d_cg, 24 points of the contour in place of 20", abs(at(1.0, 24)[0] - values[inside, 4]).max(), 1e-6)
    part = values.reshape(17, 25, 13)
    whole = np.concatenate([part[:0:-1], part])
    return dict(zip("xyt", axes, strict=True)) | {"values": np.concatenate([whole[:, :0:-1], whole], axis=1)[..., None]}


def heat2d_vc() -> dict[str, Array]:
    """Heat in a random medium, by central differences and Richardson's extrapolation; exact in time.

    The solution is that of the source's own frequency, and what decays of it, by its Laplace transform.
    """
    conductivity = Heat2dVc().log_conductivity
    times = np.linspace(0, 5, 11)

    def solve(n: int) -> Array:
        """At the nodes of a grid of n x n cells and the times."""
        axis = torch.linspace(0, 1, n + 1, dtype=torch.float64)[1:-1]
        x, y = torch.cartesian_prod(axis, axis).unbind(1)
        second = sparse.diags_array([1.0, -2.0, 1.0], offsets=[-1, 0, 1], shape=(n - 1, n - 1)) * n**2
        one = sparse.eye_array(n - 1)
        laplacian = sparse.kron(second, one) + sparse.kron(one, second)
        operator = (sparse.diags_array(np.exp(conductivity(x, y).numpy())) @ laplacian).tocsc()
        source = 200 * np.sin(math.pi * x.numpy()) * np.sin(5 * math.pi * y.numpy())
        identity = sparse.eye_array(len(source), format="csc")

        def resolvent(s: complex, right: Array) -> Complex:
            result: Complex = sparse_linalg.spsolve((s * identity - operator).tocsc(), right.astype(complex))
            return result

        steady = resolvent(1j * math.pi, source)
        values = np.zeros((n + 1, n + 1, len(times)))
        decays = True
        for i, t in enumerate(times[1:], start=1):
            inside = (np.exp(1j * math.pi * t) * steady).imag
            if decays:
                left = np.zeros(len(source))
                for z, slope in zip(*talbot(14), strict=True):
                    left += (2 / 14) * (np.exp(z) * resolvent(z / t, -steady.imag) * slope / (1j * t)).real
                inside = inside + left
                decays = abs(left).max() > 1e-7 * abs(steady).max()
            values[1:-1, 1:-1, i] = inside.reshape(n - 1, n - 1)
        return values

    def extrapolated(coarse: int, step: int) -> Array:
        """From n and 2 n cells, at every step-th node of the coarse grid."""
        first, second = solve(coarse)[::step, ::step], solve(2 * coarse)[:: 2 * step, :: 2 * step]
        result: Array = second + (second - first) / 3
        return result

    values, other = extrapolated(80, 2), extrapolated(60, 3)
    difference = values[::2, ::2] - other
    check("heat2d_vc, 60 and 120 cells in place of 80 and 160", np.sqrt((difference**2).sum() / (other**2).sum()), 3e-4)
    axis = np.linspace(0, 1, 41)
    return {"x": axis, "y": axis, "t": times, "values": values[..., None]}


def heat2d_lt() -> dict[str, Array]:
    """A reaction over a long time, by central differences, the Runge-Kutta method and Richardson's extrapolation."""
    times = np.linspace(0, 100, 21)

    def solve(n: int, step: float) -> Array:
        """At the nodes of a grid of n x n cells and the times."""
        x = np.linspace(0, 1, n + 1)
        u = np.sin(4 * math.pi * x)[:, None] * np.sin(3 * math.pi * x)
        u[[0, -1]] = u[:, [0, -1]] = 0
        strength = 5 * np.sin(4 * math.pi * x[1:-1])[:, None] * np.sin(2 * math.pi * x[1:-1])

        def rate(u: Array, t: float) -> Array:
            result, inside = np.zeros_like(u), u[1:-1, 1:-1]
            laplacian = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * inside
            reaction = strength * (1 + 2 * math.sin(math.pi * t / 4)) * np.sin(inside**2)
            result[1:-1, 1:-1] = 0.001 * n**2 * laplacian + reaction
            return result

        values = [u]
        per_time = round((times[1] - times[0]) / step)
        for i in range(per_time * (len(times) - 1)):
            t = i * step
            first = rate(u, t)
            second = rate(u + step / 2 * first, t + step / 2)
            third = rate(u + step / 2 * second, t + step / 2)
            u = u + step / 6 * (first + 2 * second + 2 * third + rate(u + step * third, t + step))
            if (i + 1) % per_time == 0:
                values.append(u)
        return np.stack(values, axis=-1)

    coarse, middle, fine = solve(48, 0.02), solve(96, 0.01), solve(192, 0.005)
    other = (middle[::2, ::2] + (middle[::2, ::2] - coarse) / 3)[::2, ::2]
    values = fine[::2, ::2] + (fine[::2, ::2] - middle) / 3
    difference = np.linalg.norm(values[::4, ::4] - other) / np.linalg.norm(other)
    check("heat2d_lt, 48 and 96 cells in place of 96 and 192", difference, 1e-2)
    axis = np.linspace(0, 1, 33)
    return {"x": axis, "y": axis, "t": times, "values": values[::3, ::3, :, None]}


def poisson2d_ms() -> dict[str, Array]:
    """Conduction through blocks, by finite volumes with sides at those of the blocks and Richardson's extrapolation."""
    problem = Poisson2dMs()

    def solve(cells: int) -> Array:
        """In the middles of so many cells per block and direction."""
        n, h = 5 * cells, 4 / cells
        middle = torch.arange(n, dtype=torch.float64).add(0.5) * h - 10
        x, y = torch.cartesian_prod(middle, middle).unbind(1)
        a = problem.conductivity(x, y).reshape(n, n).numpy()
        zero = torch.zeros_like(x)
        source = problem.equation(SimpleNamespace(x=x, y=y), SimpleNamespace(u_xx=zero, u_yy=zero)).numpy()
        places, diagonal, parts = np.arange(n * n).reshape(n, n), np.zeros((n, n)), []
        for along in (lambda v: v, np.transpose):
            # views: what is added to these is added to the diagonal
            left, right, own = along(places)[:-1], along(places)[1:], along(diagonal)
            k = 2 * along(a)[:-1] * along(a)[1:] / (along(a)[:-1] + along(a)[1:])
            parts += [(left, right, k), (right, left, k)]
            own[:-1] += k
            own[1:] += k
            for end in (0, -1):
                own[end] += along(a)[end] * h / (1 + h / 2)
        parts.append((places, places, -diagonal))
        rows, columns, values = (np.concatenate([each[i].ravel() for each in parts]) for i in range(3))
        matrix = sparse.csc_array((-values, (rows, columns)))
        result: Array = sparse_linalg.spsolve(matrix, source * h**2).reshape(n, n)
        return result

    coarse, middle, fine = (solve(cells) for cells in (9, 27, 81))
    values = fine[1::3, 1::3] + (fine[1::3, 1::3] - middle) / 8
    other = middle[1::3, 1::3] + (middle[1::3, 1::3] - coarse) / 8
    difference = np.linalg.norm(values[1::3, 1::3] - other) / np.linalg.norm(other)
    check("poisson2d_ms, 9 and 27 cells in place of 27 and 81", difference, 5e-3)
    axis = (np.arange(135) + 0.5) * 4 / 27 - 10
    return {"x": axis, "y": axis, "values": values[..., None]}


MAKE = {each.__name__: each for each in (poisson2d_c, poisson2d_cg, heat2d_cg, heat2d_vc, heat2d_lt, poisson2d_ms)}


def main() -> None:
    """Make the files of the problems named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problems", nargs="*", metavar="NAME", help=", ".join(MAKE))
    names = parser.parse_args().problems or list(MAKE)
    if unknown := set(names) - set(MAKE):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(MAKE)}")
    for name in names:
        np.savez_compressed(DATA / f"{name}.npz", **MAKE[name]())


if __name__ == "__main__":
    main()
