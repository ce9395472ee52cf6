"""Compute the reference solutions in ``ntkrun/pde/data`` and check each against a second method.

    python scripts/reference_solutions.py [NAME ...]

Each file holds the grid's axes by letter, ``values`` of shape ``[*grid, fields]`` and ``tolerance``, a bound on
their absolute error; the script prints the differences that establish it and stops if one exceeds it. Needs SciPy.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.fft
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.sparse.linalg import splu

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]
Function = Callable[[Complex], Complex]

DATA = Path(__file__).parent.parent / "ntkrun" / "pde" / "data"

# Centre-line velocities at Re = 100: U. Ghia, K. N. Ghia, C. T. Shin, J. Comput. Phys. 48 (1982), tables I and II.
# fmt: off
GHIA_Y = [1, .9766, .9688, .9609, .9531, .8516, .7344, .6172, .5, .4531, .2813, .1719, .1016, .0703, .0625, .0547, 0]
GHIA_U = [1, .84123, .78871, .73722, .68717, .23151, .00332, -.13641, -.20581, -.21090, -.15662, -.10150, -.06434,
          -.04775, -.04192, -.03717, 0]
GHIA_X = [1, .9688, .9609, .9531, .9453, .9063, .8594, .8047, .5, .2344, .2266, .1563, .0938, .0781, .0703, .0625, 0]
GHIA_V = [0, -.05906, -.07391, -.08864, -.10313, -.16914, -.22445, -.24533, .05454, .17527, .17507, .16077, .12317,
          .10890, .10091, .09233, 0]
# fmt: on


def check(what: str, difference: float, bound: float) -> None:
    """Print a difference between two computations; stop where it exceeds its bound."""
    print(f"  {what}: {difference:.1e} (bound {bound:.0e})")
    if not difference <= bound:
        raise SystemExit(f"{what}: {difference:.1e} exceeds {bound:.0e}")


def etdrk4(linear: Array | Complex, nonlinear: Function, v: Complex, outputs: int, substeps: int) -> list[Complex]:
    """Integrate v' = linear v + nonlinear(v) over [0, 1] (Cox & Matthews; Kassam & Trefethen 2005).

    Returns the states at ``outputs + 1`` equispaced times.
    """
    h = 1 / (outputs * substeps)
    E, E2 = np.exp(h * linear), np.exp(h * linear / 2)
    z = h * linear[:, None] + np.exp(1j * np.pi * (np.arange(64) + 0.5) / 32)
    Q = h * ((np.exp(z / 2) - 1) / z).mean(1)
    f1 = h * ((-4 - z + np.exp(z) * (4 - 3 * z + z**2)) / z**3).mean(1)
    f2 = h * ((2 + z + np.exp(z) * (-2 + z)) / z**3).mean(1)
    f3 = h * ((-4 - 3 * z - z**2 + np.exp(z) * (4 - z)) / z**3).mean(1)
    states = [v]
    for _ in range(outputs):
        for _ in range(substeps):
            Nv = nonlinear(v)
            a = E2 * v + Q * Nv
            Na = nonlinear(a)
            b = E2 * v + Q * Na
            Nb = nonlinear(b)
            Nc = nonlinear(E2 * a + Q * (2 * Nb - Nv))
            v = E * v + f1 * Nv + 2 * f2 * (Na + Nb) + f3 * Nc
        states.append(v)
    return states


def on_grid(states: list[Complex], nodes: int, x: Array) -> Array:
    """Values ``[x, t]`` of ``states``, Fourier coefficients ``rfft(u) / nodes`` of functions of period 2."""
    n = np.arange(nodes // 2 + 1)
    weight = np.where((n == 0) | (n == nodes // 2), 1, 2)
    waves = weight * np.exp(1j * np.pi * np.outer(x, n))
    values: Array = (waves @ np.array(states).T).real
    return values


# Burgers ---------------------------------------------------------------------------------------------------


def cole_hopf(x: Array, t: Array, nu: float, nodes: int) -> Array:
    """Burgers' equation from -sin(pi x) by the Cole-Hopf transformation, ``[x, t]``.

    u = -int sin(pi y) w dy / int w dy, w = exp(-cos(pi y) / (2 pi nu) - s^2), y = x - 2 sqrt(nu t) s, by the
    trapezoidal rule in s, which converges exponentially for these integrands.
    """
    s = np.linspace(-16, 16, nodes)
    y = x[:, None, None] - 2 * np.sqrt(nu * t)[:, None] * s
    exponent = -np.cos(np.pi * y) / (2 * np.pi * nu) - s**2
    w = np.exp(exponent - exponent.max(-1, keepdims=True))
    values: Array = -(np.sin(np.pi * y) * w).sum(-1) / w.sum(-1)
    return values


def burgers_spectral(x: Array, steps: int, nu: float, nodes: int, substeps: int) -> Array:
    """The same solution by a Fourier method."""
    k = np.pi * np.arange(nodes // 2 + 1)
    grid = -1 + 2 * np.arange(nodes) / nodes
    shift = np.exp(-1j * np.pi * np.arange(nodes // 2 + 1) * grid[0])  # phases of a grid that starts at -1
    start = shift * scipy.fft.rfft(-np.sin(np.pi * grid)) / nodes

    def nonlinear(v: Complex) -> Complex:
        u = scipy.fft.irfft(v / shift * nodes, nodes)
        result: Complex = -0.5j * k * shift * scipy.fft.rfft(u**2) / nodes
        return result

    return on_grid(etdrk4(-nu * k**2, nonlinear, start, steps, substeps), nodes, x)


def burgers() -> dict[str, Array]:
    """u_t + u u_x = nu u_xx, nu = 0.01 / pi, u(x, 0) = -sin(pi x), u(+-1, t) = 0."""
    tolerance = 1e-9
    nu = 0.01 / math.pi
    x, t = np.linspace(-1, 1, 201), np.linspace(0, 1, 101)
    u = cole_hopf(x, t, nu, 801)
    check("quadrature with 801 against 1,601 nodes", abs(u - cole_hopf(x, t, nu, 1601)).max(), tolerance)
    check("Cole-Hopf against a Fourier method", abs(u - burgers_spectral(x, 100, nu, 4096, 50)).max(), tolerance)
    u[:, 0] = -np.sin(np.pi * x)
    u[[0, -1]] = 0
    return {"x": x, "t": t, "values": u[..., None], "tolerance": np.array(tolerance)}


# Allen-Cahn ------------------------------------------------------------------------------------------------


def allen_cahn_spectral(x: Array, steps: int, nodes: int, substeps: int) -> Array:
    """Fourier method from the exact coefficients of x^2 cos(pi x), whose periodic extension has a kink."""
    n = np.arange(nodes // 2 + 1)

    def moment(m: NDArray[np.int_]) -> Array:
        """int_{-1}^{1} x^2 cos(pi m x) dx."""
        m1 = np.where(m == 0, 1, m)
        values: Array = np.where(m == 0, 2 / 3, 4 * (-1.0) ** m / (np.pi * m1) ** 2)
        return values

    start = ((moment(n + 1) + moment(n - 1)) / 4).astype(complex)
    start[-1] = 0

    def nonlinear(v: Complex) -> Complex:
        u = scipy.fft.irfft(v * nodes, nodes)
        result: Complex = 5 * scipy.fft.rfft(u - u**3) / nodes
        return result

    return on_grid(etdrk4(-1e-4 * (np.pi * n) ** 2, nonlinear, start, steps, substeps), nodes, x)


def allen_cahn_collocation(x: Array, t: Array, degree: int) -> Array:
    """Chebyshev collocation on [0, 1] with u_x = 0 at both ends (the solution is even), implicit Runge-Kutta."""
    D, z = chebyshev(degree)
    D, z = 2 * D, (z + 1) / 2
    ends, inner = [0, degree], np.arange(1, degree)
    T = np.eye(degree + 1)[:, 1:-1]
    T[ends] = -np.linalg.solve(D[np.ix_(ends, ends)], D[np.ix_(ends, inner)])
    L = 1e-4 * (D @ D @ T)[1:-1]
    solution = solve_ivp(
        lambda _, u: L @ u + 5 * (u - u**3), (0, 1), (z**2 * np.cos(np.pi * z))[1:-1], "Radau", t,
        jac=lambda _, u: L + np.diag(5 - 15 * u**2), rtol=1e-8, atol=1e-10,
    )  # fmt: skip
    return interpolate(z, T @ solution.y, abs(x))


def allen_cahn() -> dict[str, Array]:
    """u_t = 1e-4 u_xx - 5 u^3 + 5 u, u(x, 0) = x^2 cos(pi x), period 2 in x."""
    tolerance = 1e-7
    x, t = np.linspace(-1, 1, 201), np.linspace(0, 1, 101)
    u = allen_cahn_spectral(x, 100, 8192, 20)
    later = slice(1, None)  # at t = 0 a Fourier series of a function with a kink has its largest error
    modes = allen_cahn_spectral(x, 100, 4096, 20)
    check("4,096 against 8,192 Fourier nodes", abs(u - modes)[:, later].max(), tolerance)
    halved = allen_cahn_spectral(x, 100, 8192, 10)
    check("time steps of 0.001 against 0.0005", abs(u - halved)[:, later].max(), tolerance)
    other = allen_cahn_collocation(x, t, 600)
    check("Fourier against Chebyshev collocation", abs(u - other)[:, later].max(), tolerance)
    u[:, 0] = x**2 * np.cos(np.pi * x)
    return {"x": x, "t": t, "values": u[..., None], "tolerance": np.array(tolerance)}


# Cavity ----------------------------------------------------------------------------------------------------


def cavity_differences(n: int, reynolds: float) -> tuple[Array, Array]:
    """Velocities at the nodes of an n by n grid, from central differences for the stream function, by Newton.

    psi_y = u, psi_x = -v and omega = -laplace psi satisfy u omega_x + v omega_y = laplace omega / Re; the walls enter
    through mirrored nodes outside.
    """
    h = 1 / n
    embed = sp.eye(n + 1, n - 1, k=-1, format="csr")  # inner nodes into all nodes; zero on the walls
    second = sp.diags([1.0, -2.0, 1.0], [0, 1, 2], shape=(n - 1, n + 1)) / h**2
    first = sp.diags([-1.0, 1.0], [0, 2], shape=(n - 1, n + 1)) / (2 * h)
    ends = sp.coo_matrix(([2 / h**2] * 2, ([0, n], [0, n - 2])), shape=(n + 1, n - 1))
    curvature = embed @ second @ embed + ends
    restrict = embed.T
    vorticity = -(sp.kron(curvature, embed) + sp.kron(embed, curvature)).tocsr()
    lid = np.zeros((n + 1, n + 1))
    lid[1:-1, -1] = -2 / h  # psi_yy of a node mirrored across a wall moving at speed 1
    dx, dy = sp.kron(first, restrict), sp.kron(restrict, first)
    diffuse = (sp.kron(second, restrict) + sp.kron(restrict, second)) / reynolds
    inside = sp.kron(embed, embed)
    to_u, to_v = dy @ inside, -dx @ inside
    psi = np.zeros((n - 1) ** 2)
    for _ in range(12):
        omega = vorticity @ psi + lid.ravel()
        u, v, ox, oy = to_u @ psi, to_v @ psi, dx @ omega, dy @ omega
        residual = u * ox + v * oy - diffuse @ omega
        transport = sp.diags(u) @ dx + sp.diags(v) @ dy - diffuse
        jacobian = transport @ vorticity + sp.diags(ox) @ to_u + sp.diags(oy) @ to_v
        step = splu(jacobian.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(residual)
        psi = psi - step
        if abs(step).max() < 1e-11:
            break
    else:
        raise SystemExit("cavity: Newton's method has not converged")
    full_u, full_v = np.zeros((n + 1, n + 1)), np.zeros((n + 1, n + 1))
    full_u[1:-1, 1:-1] = (to_u @ psi).reshape(n - 1, n - 1)
    full_v[1:-1, 1:-1] = (to_v @ psi).reshape(n - 1, n - 1)
    full_u[:, -1] = 1
    return full_u, full_v


def corner_flow(x: Array, y: Array, reynolds: float) -> Array:
    """psi, psi_x, psi_y, omega_x, omega_y and laplace^2 psi of the singular flow at the corner (0, 1).

    In X = x, Y = 1 - y and their polar coordinates, psi = r f(theta) + Re r^2 g(theta): the Stokes flow of Taylor
    (1962), r f = b Y + theta (c X + d Y) with psi_y = 1 on Y = 0 and rest on X = 0, and what its own convection adds,
    d^4 g + 4 d^2 g = d (f (f + d^2 f)) with g = d g = 0 on both walls, d being the derivative by theta. (Botella and
    Peyret, Computers & Fluids 27 (1998), take out the same two.)
    """
    c = 1 / (np.pi**2 / 4 - 1)
    d = c * np.pi / 2
    b = -d * np.pi / 2
    X, Y = x, 1 - y
    theta, r2 = np.arctan2(Y, X), np.where(X**2 + Y**2 == 0, 1, X**2 + Y**2)
    ray, across = c * X + d * Y, d * X - c * Y
    stokes = np.stack([
        b * Y + theta * ray, c * theta - Y * ray / r2, -b - d * theta - X * ray / r2,
        (4 * X * across / r2 - 2 * d) / r2, -(4 * Y * across / r2 + 2 * c) / r2, 0 * X,
    ])  # fmt: skip
    g, g1, g2, g3, g4 = corner_convection(theta, b, c, d)
    k1, k2 = 4 * g1 + g3, 4 * g2 + g4
    convection = np.stack([
        (X**2 + Y**2) * g, 2 * X * g - Y * g1, -2 * Y * g - X * g1, Y * k1 / r2, X * k1 / r2, k2 / r2,
    ])  # fmt: skip
    result: Array = stokes + reynolds * convection
    return result


def corner_convection(theta: Array, b: float, c: float, d: float) -> list[Array]:
    """The angular part g of ``corner_flow`` and its derivatives up to the fourth.

    But for a constant, f (f + d^2 f) is the real part of (theta (2 c d - i (d^2 - c^2)) + b c - i b d) exp(2 i theta);
    g is that of (alpha theta^2 + beta theta) exp(2 i theta) and a sum of 1, theta, cos(2 theta) and sin(2 theta).
    """
    alpha = -(2 * c * d - 1j * (d**2 - c**2)) / 16
    beta = (12j * alpha - b * c + 1j * b * d) / 8

    def particular(theta: Array) -> list[Array]:
        polynomial = [alpha * theta**2 + beta * theta, 2 * alpha * theta + beta, 2 * alpha + 0 * theta]
        values = []
        for k in range(5):
            parts = [math.comb(k, j) * (2j) ** (k - j) * polynomial[j] for j in range(min(k, 2) + 1)]
            values.append((sum(parts) * np.exp(2j * theta)).real)
        return values

    def free(theta: Array) -> list[list[Array]]:
        waves = [[((2j) ** k * np.exp(2j * theta) * phase).real for k in range(5)] for phase in (1, -1j)]
        none = 0 * theta
        return [[none + 1, none, none, none, none], [theta, none + 1, none, none, none], *waves]

    ends = np.array([0, np.pi / 2])
    known = particular(ends)
    matrix = np.array([[*each[0], *each[1]] for each in free(ends)]).T
    factors = np.linalg.solve(matrix, -np.array([*known[0], *known[1]]))
    own = free(theta)
    return [p + sum(q * each[k] for q, each in zip(factors, own, strict=True)) for k, p in enumerate(particular(theta))]


def corner_flows(x: Array, y: Array, reynolds: float) -> tuple[Array, Array]:
    """The flow at the corner (0, 1), and that at (1, 1): its mirror image, towards which the lid moves."""
    mirrored = np.array([1, -1, 1, -1, 1, 1])[:, None, None]
    return corner_flow(x, y, reynolds), mirrored * corner_flow(1 - x, y, -reynolds)


def cavity_collocation(degree: int, reynolds: float, axis: Array) -> Array:
    """Velocities ``[2, x, y]`` on a product grid, by Chebyshev collocation of the stream function.

    The singular flows at the corners below the lid are taken out; Newton's method starts from Stokes flow.
    """
    D, z = chebyshev(degree)
    D, z = 2 * D, (z + 1) / 2
    D2, one = D @ D, np.eye(degree + 1)
    ends, near, inner = [0, degree], [1, degree - 1], np.arange(2, degree - 1)
    # A function on all nodes is T (its values at inner nodes) + S (its values at both ends, its slopes there).
    slopes = np.linalg.inv(D[np.ix_(ends, near)])
    T, S = one[:, 2:-2].copy(), np.zeros((degree + 1, 4))
    T[near] = -slopes @ D[np.ix_(ends, inner)]
    S[ends, [0, 1]] = 1
    S[near] = np.hstack([-slopes @ D[np.ix_(ends, ends)], slopes])
    left, right = corner_flows(*np.meshgrid(z, z, indexing="ij"), reynolds)
    both = left + right
    # What the regular part has on the walls; either flow keeps the walls that meet in its own corner.
    walls_x = -np.stack([right[0, 0], left[0, -1], right[1, 0], left[1, -1]])
    still = np.zeros(len(inner))
    walls_y = -np.stack([both[0, inner, 0], still, both[2, inner, 0], still + 1], axis=1)
    lift = T @ walls_y @ S.T + S @ walls_x
    inside = np.kron(T, T)

    def operator(*products: tuple[Array, Array]) -> tuple[Array, Array]:
        """A sum of products of operators in x and in y at the inner nodes: its matrix, and its value on the lift."""
        matrix = sum(np.kron(X[inner], Y[inner]) for X, Y in products) @ inside
        return matrix, sum(X[inner] @ lift @ Y[inner].T for X, Y in products).ravel()

    _, psi_x, psi_y, sx, sy, s4 = both[:, 2:-2, 2:-2].reshape(6, -1)
    U, u0 = operator((one, D))
    V, v0 = operator((-D, one))
    OX, ox0 = operator((-D @ D2, one), (-D, D2))
    OY, oy0 = operator((-D2, D), (-one, D @ D2))
    B, b0 = operator((D2 @ D2, one), (one, D2 @ D2), (2 * D2, D2))
    q = -np.linalg.solve(B, b0)
    for _ in range(12):
        u, v, ox, oy = U @ q + u0 + psi_y, V @ q + v0 - psi_x, OX @ q + ox0 + sx, OY @ q + oy0 + sy
        jacobian = ox[:, None] * U + u[:, None] * OX + oy[:, None] * V + v[:, None] * OY + B / reynolds
        step = np.linalg.solve(jacobian, u * ox + v * oy + (B @ q + b0 + s4) / reynolds)
        q = q - step
        if abs(step).max() < 1e-10:
            break
    else:
        raise SystemExit("cavity: Newton's method has not converged")
    psi = (inside @ q).reshape(degree + 1, degree + 1) + lift
    singular = sum(corner_flows(*np.meshgrid(axis, axis, indexing="ij"), reynolds))
    regular = [interpolate(z, interpolate(z, f, axis).T, axis).T for f in (psi @ D.T, -D @ psi)]
    return np.stack([regular[0] + singular[2], regular[1] - singular[1]])


def cavity() -> dict[str, Array]:
    """Steady lid-driven cavity at Re = 100; the lid y = 1 moves at speed 1; the pressure is left open."""
    tolerance, reynolds, n = 1e-6, 100.0, 128
    axis = np.linspace(0, 1, n + 1)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    corner = np.minimum(np.hypot(x, 1 - y), np.hypot(1 - x, 1 - y))
    first, before, flow = (cavity_collocation(degree, reynolds, axis) for degree in (48, 56, 64))
    print(f"  velocity at the centre: {flow[0, n // 2, n // 2]:.8f}, {flow[1, n // 2, n // 2]:.8f}")
    early, late = (float(abs(a - b)[:, ::2, ::2].max()) for a, b in ((before, first), (flow, before)))
    check("degree 48 against 56, on the grid of 65 by 65", early, 2e-5)
    check("degree 56 against 64", late, 5e-6)
    check("what is left, for differences that go on falling like that", late / (early / late - 1), tolerance)
    # Second-order differences, extrapolated; near the corners their singularity dominates the error.
    coarse, fine = (np.stack(cavity_differences(m, reynolds))[:, :: m // n, :: m // n] for m in (n, 2 * n))
    other = abs(flow - (4 * fine - coarse) / 3)
    check("collocation against differences, 0.1 and more from the corners", other[:, corner >= 0.1].max(), 1e-4)
    ghia_y, ghia_u, ghia_x, ghia_v = (np.array(column, dtype=float) for column in (GHIA_Y, GHIA_U, GHIA_X, GHIA_V))
    check("u against Ghia et al.", abs(flow[0, n // 2, np.rint(ghia_y * n).astype(int)] - ghia_u).max(), 0.006)
    check("v against Ghia et al.", abs(flow[1, np.rint(ghia_x * n).astype(int), n // 2] - ghia_v).max(), 0.01)
    flow[:, [0, -1], :], flow[:, :, 0], flow[0, :, -1], flow[1, :, -1] = 0, 0, 1, 0
    flow[0, [0, -1], -1] = np.nan  # where lid and wall meet
    values = np.stack([*flow, np.full_like(x, np.nan)], axis=-1)[::2, ::2]
    ghia = {"ghia_y": ghia_y, "ghia_u": ghia_u, "ghia_x": ghia_x, "ghia_v": ghia_v}
    return {"x": axis[::2], "y": axis[::2], "values": values, "tolerance": np.array(tolerance), **ghia}


# Korteweg-de Vries and Kuramoto-Sivashinsky ----------------------------------------------------------------


def conservative(factor: float, k: Array, nodes: int) -> Function:
    """-factor u u_x = -factor (u^2 / 2)_x of Fourier coefficients ``rfft(u) / nodes``, without aliasing."""
    size = 3 * nodes // 2

    def nonlinear(v: Complex) -> Complex:
        u = scipy.fft.irfft(v, size) * size
        result: Complex = -0.5j * factor * k * (scipy.fft.rfft(u**2) / size)[: len(k)]
        return result

    return nonlinear


def by_integrating_factor(
    linear: Array | Complex, nonlinear: Function,
    v: Complex, outputs: int,
) -> list[Complex]:  # fmt: skip
    """As ``etdrk4``, by an explicit method of order 8 with step-size control for exp(-linear t) v."""
    states = [v]
    h = 1 / outputs
    for _ in range(outputs):  # from every output anew, for exp(-linear t) overflows
        solution = solve_ivp(
            lambda t, w: np.exp(-t * linear) * nonlinear(np.exp(t * linear) * w),
            (0, h), states[-1], "DOP853", [h], rtol=1e-12, atol=1e-14,
        )  # fmt: skip
        states.append(np.exp(h * linear) * solution.y[:, -1])
    return states


def korteweg_de_vries() -> dict[str, Array]:
    """u_t + u u_x + 0.0025 u_xxx = 0, u(x, 0) = cos(pi x), period 2 in x."""
    tolerance, b = 1e-9, 0.0025
    x, t = np.linspace(-1, 1, 201), np.linspace(0, 1, 101)

    def spectral(nodes: int, substeps: int) -> Array:
        k = np.pi * np.arange(nodes // 2 + 1)
        start = np.zeros(len(k), dtype=complex)
        start[1] = 0.5
        return on_grid(etdrk4(1j * b * k**3, conservative(1.0, k, nodes), start, 100, substeps), nodes, x)

    u = spectral(256, 40)
    check("256 against 384 Fourier nodes", abs(u - spectral(384, 40)).max(), tolerance)
    check("time steps of 2.5e-4 against 1.25e-4", abs(u - spectral(256, 80)).max(), tolerance)
    k = np.pi * np.arange(129)
    start = np.zeros(len(k), dtype=complex)
    start[1] = 0.5
    other = on_grid(by_integrating_factor(1j * b * k**3, conservative(1.0, k, 256), start, 100), 256, x)
    check("exponential time differencing against an integrating factor", abs(u - other).max(), tolerance)
    u[:, 0] = np.cos(np.pi * x)
    return {"x": x, "t": t, "values": u[..., None], "tolerance": np.array(tolerance)}


def kuramoto_sivashinsky() -> dict[str, Array]:
    """u_t + a u u_x + b u_xx + c u_xxxx = 0, a = 100/16, b = 100/16^2, c = 100/16^4, from cos x (1 + sin x)."""
    tolerance, end = 1e-8, 0.1
    a, b, c = 100 / 16, 100 / 16**2, 100 / 16**4
    x, t = np.linspace(0, 2 * np.pi, 257), np.linspace(0, end, 101)

    def parts(nodes: int) -> tuple[Array, Array, Complex]:
        k = np.arange(nodes // 2 + 1.0)
        start = np.zeros(len(k), dtype=complex)
        start[1], start[2] = 0.5, -0.25j  # cos x + sin(2 x) / 2
        return end * (b * k**2 - c * k**4), end * k, start

    def spectral(nodes: int, substeps: int) -> Array:
        linear, k, start = parts(nodes)
        return on_grid(etdrk4(linear, conservative(a, k, nodes), start, 100, substeps), nodes, x / np.pi)

    u = spectral(256, 40)
    check("256 against 384 Fourier nodes", abs(u - spectral(384, 40)).max(), tolerance)
    check("time steps of 2.5e-5 against 1.25e-5", abs(u - spectral(256, 80)).max(), tolerance)
    grid, n = x[:-1], len(x) - 1
    waves = scipy.fft.rfft(np.eye(n), axis=0)
    D, L = (
        scipy.fft.irfft(symbol[:, None] * waves, n, axis=0)
        for symbol in (1j * np.arange(n // 2 + 1) * (np.arange(n // 2 + 1) < n // 2), parts(n)[0])
    )
    other = solve_ivp(
        lambda _, u: L @ u - end * a / 2 * (D @ u**2), (0, 1), np.cos(grid) * (1 + np.sin(grid)), "Radau",
        np.linspace(0, 1, 101)[::10], jac=lambda _, u: L - end * a * D * u, rtol=1e-10, atol=1e-10,
    ).y  # fmt: skip
    check("exponential time differencing against implicit Runge-Kutta", abs(u[:-1, ::10] - other).max(), tolerance)
    u[:, 0] = np.cos(x) * (1 + np.sin(x))
    return {"x": x, "t": t, "values": u[..., None], "tolerance": np.array(tolerance)}


# Ordinary differential equations ---------------------------------------------------------------------------


def ordinary(
    right: Callable[[float, Array], list[float]], start: list[float], end: float, bound: float
) -> dict[str, Array]:
    """Values on 401 times in [0, end], by an explicit method, compared with an implicit one and a third."""
    t = np.linspace(0, end, 401)

    def solve(method: str, tolerance: float) -> Array:
        solution = solve_ivp(right, (0, end), start, method, t, rtol=tolerance, atol=tolerance)
        values: Array = solution.y.T
        return values

    values = solve("DOP853", 1e-13)
    check("tolerances of 1e-13 against 1e-12", abs(values - solve("DOP853", 1e-12)).max(), bound)
    check("DOP853 against Radau", abs(values - solve("Radau", 3e-14)).max(), bound)
    return {"t": t, "values": values, "tolerance": np.array(bound)}


def lotka_volterra() -> dict[str, Array]:
    """The orbit of u' = 2/3 u - 4/3 u v, v' = u v - v from (1, 1)."""
    return ordinary(lambda _, y: [y[0] * (2 - 4 * y[1]) / 3, y[1] * (y[0] - 1)], [1.0, 1.0], 10.0, 1e-10)


def van_der_pol() -> dict[str, Array]:
    """The solution of u'' - (1 - u^2) u' + u = 0 from u = 2, u' = 0."""
    solution = ordinary(lambda _, y: [y[1], (1 - y[0] ** 2) * y[1] - y[0]], [2.0, 0.0], 10.0, 1e-10)
    return {**solution, "values": solution["values"][:, :1]}


def lorenz() -> dict[str, Array]:
    """The orbit of x' = 10 (y - x), y' = x (28 - z) - y, z' = x y - 8/3 z from (1, 1, 1)."""

    def right(_: float, y: Array) -> list[float]:
        return [10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]]

    return ordinary(right, [1.0, 1.0, 1.0], 2.0, 1e-9)


# Polynomials -----------------------------------------------------------------------------------------------


def chebyshev(degree: int) -> tuple[Array, Array]:
    """Differentiation matrix and nodes on [-1, 1], ascending (Trefethen 2000, chapter 6)."""
    z = -np.cos(np.pi * np.arange(degree + 1) / degree)
    c = np.ones(degree + 1)
    c[[0, -1]] = 2
    c *= (-1.0) ** np.arange(degree + 1)
    D = np.outer(c, 1 / c) / (z[:, None] - z + np.eye(degree + 1))
    return D - np.diag(D.sum(1)), z


def interpolate(z: Array, values: Array, x: Array) -> Array:
    """The polynomial through ``values`` ``[nodes, ...]`` at Chebyshev nodes ``z``, at ``x`` (barycentric)."""
    w = (-1.0) ** np.arange(len(z))
    w[[0, -1]] /= 2
    gap = x[:, None] - z
    exact = abs(gap) < 1e-14
    weights = w / np.where(exact, 1, gap)
    weights = np.where(exact.any(1, keepdims=True), exact, weights)
    result: Array = weights @ values / weights.sum(1, keepdims=True)
    return result


SOLUTIONS = {
    "burgers": burgers,
    "allen_cahn": allen_cahn,
    "cavity": cavity,
    "korteweg_de_vries": korteweg_de_vries,
    "kuramoto_sivashinsky": kuramoto_sivashinsky,
    "lotka_volterra": lotka_volterra,
    "van_der_pol": van_der_pol,
    "lorenz": lorenz,
}


def main() -> None:
    """Compute the solutions named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SOLUTIONS)}; all by default")
    for name in parser.parse_args().names or SOLUTIONS:
        print(name)
        arrays = SOLUTIONS[name]()
        path = DATA / f"{name}.npz"
        np.savez_compressed(path, **arrays)
        print(f"  {path.relative_to(DATA.parents[2])}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
