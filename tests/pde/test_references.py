"""Reference solutions satisfy their problems and agree with independent computations."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.integrate import quad, solve_ivp
from scipy.interpolate import RectBivariateSpline, make_interp_spline

from ntkrun.pde import (
    PDE,
    AllenCahn,
    Burgers,
    Cavity,
    Columns,
    Cylinder,
    KortewegDeVries,
    KuramotoSivashinsky,
    Lorenz,
    LotkaVolterra,
    Reference,
    Term,
    VanDerPol,
)
from ntkrun.pde.references import load_arrays

Array = NDArray[np.float64]

ORDINARY = {"lotka_volterra": LotkaVolterra(), "van_der_pol": VanDerPol(), "lorenz": Lorenz()}
PERIODIC = {"korteweg_de_vries": KortewegDeVries(), "kuramoto_sivashinsky": KuramotoSivashinsky()}
PROBLEMS = {
    "burgers": Burgers(),
    "allen_cahn": AllenCahn(),
    "cavity": Cavity(),
    "cylinder": Cylinder(),
    **PERIODIC,
    **ORDINARY,
}
DATA = Path(__file__).parents[2] / "ntkrun" / "pde" / "data"


def reference(pde: PDE) -> Reference:
    found = pde.reference()
    assert found is not None
    return found


U_T = Term("", (), ("u_t",), lambda x, d: d.u_t)


def term(pde: PDE, name: str) -> Term:
    return {term.name: term for term in pde.terms()}[name]


def columns(values: dict[str, Array], partner: dict[str, Array] | None = None) -> Columns:
    """Arrays flattened into columns."""
    flat = {name: torch.tensor(v.ravel()) for name, v in values.items()}
    return Columns(flat, "reference", None if partner is None else columns(partner))


def derivatives(pde: PDE, values: Array, term: Term, axes: tuple[Array, Array]) -> dict[str, Array]:
    """What a term reads of a quintic spline through the reference's values."""

    def derivative(name: str) -> Array:
        field, _, letters = name.partition("_")
        spline = RectBivariateSpline(*reference(pde).axes.values(), values[..., pde.fields.index(field)], kx=5, ky=5)
        orders = [letters.count(c) for c in pde.coordinates]
        return np.asarray(spline(*axes, dx=orders[0], dy=orders[1]))

    combined = {name: sum(c * derivative(part) for part, c in parts.items()) for name, parts in term.operators.items()}
    return {**{name: derivative(name) for name in term.derivatives}, **combined}


def points(pde: PDE, axes: tuple[Array, Array]) -> Columns:
    return columns(dict(zip(pde.coordinates, np.meshgrid(*axes, indexing="ij"), strict=True)))


@pytest.mark.parametrize("name", PROBLEMS)
def test_shape_and_size(name: str) -> None:
    pde = PROBLEMS[name]
    found = reference(pde)
    assert tuple(found.axes) == pde.coordinates
    for c, axis in found.axes.items():
        assert (axis[0], axis[-1]) == (pde.domain.low[c], pde.domain.high[c])
    assert found.values.shape == (*(len(axis) for axis in found.axes.values()), len(pde.fields))
    assert found.values.dtype == np.float64
    assert (DATA / f"{name}.npz").stat().st_size < 300_000
    assert pde.exact(pde.columns(torch.zeros(1, len(pde.coordinates)))) is None


OTHERS = [
    *(Burgers(nu=0.1), AllenCahn(nu=1e-3), AllenCahn(s=4.0), Cavity(reynolds=400.0), KortewegDeVries(b=0.001)),
    *(KuramotoSivashinsky(end=1.0), KuramotoSivashinsky(a=1.0), LotkaVolterra(u0=2.0), VanDerPol(mu=2.0)),
    Lorenz(end=3.0),
]


@pytest.mark.parametrize("pde", OTHERS, ids=lambda pde: type(pde).__name__)
def test_no_reference_for_other_parameters(pde: PDE) -> None:
    assert pde.reference() is None


def test_burgers_is_cole_hopf() -> None:
    """Adaptive quadrature of the two integrals over y."""
    pde = Burgers()
    found = reference(pde)
    x, t = found.axes.values()
    chosen = np.random.default_rng(0).integers([1, 1], [len(x) - 1, len(t)], size=(20, 2))
    for i, j in chosen:
        exact = cole_hopf(x[i], t[j], pde.nu)
        assert abs(found.values[i, j, 0] - exact) < load_arrays("burgers")["tolerance"]


def cole_hopf(x: float, t: float, nu: float) -> float:
    def exponent(y: float) -> float:
        return -math.cos(math.pi * y) / (2 * math.pi * nu) - (x - y) ** 2 / (4 * nu * t)

    samples = np.linspace(x - 2, x + 2, 4001)
    top = max(exponent(y) for y in samples)
    inside = [y for y in samples if exponent(y) > top - 50]

    def integral(f: Callable[[float], float]) -> float:
        whole = quad(lambda y: f(y) * math.exp(exponent(y) - top), inside[0], inside[-1], limit=500, epsabs=1e-13)
        return float(whole[0])

    return -integral(lambda y: math.sin(math.pi * y)) / integral(lambda y: 1.0)


def test_burgers_satisfies_its_terms() -> None:
    pde = Burgers()
    x = reference(pde).axes["x"]
    u = reference(pde).values[..., 0]
    assert term(pde, "boundary").residual(columns({}), columns({"u": u[[0, -1]]})).abs().max() == 0
    start = term(pde, "initial").residual(columns({"x": x}), columns({"u": u[:, 0]}))
    assert start.abs().max() < 1e-15
    # Off the grid's nodes, clear of the front and of the spline's ends.
    axes = (np.linspace(0.25, 0.95, 57), np.linspace(0.1, 0.95, 43))
    residual = term(pde, "residual")
    read = derivatives(pde, u[..., None], residual, axes)
    assert (
        residual.residual(points(pde, axes), columns(read)).abs().max()
        < 1e-6 * abs(derivatives(pde, u[..., None], U_T, axes)["u_t"]).max()
    )


def test_allen_cahn_by_splitting() -> None:
    """Reaction and diffusion, each exact, in turn (Strang); extrapolated in the step."""
    pde = AllenCahn()
    found = reference(pde)
    nodes = 16000
    grid = -1 + 2 * np.arange(nodes) / nodes
    decay = -pde.nu * (math.pi * np.arange(nodes // 2 + 1)) ** 2

    def at_the_end(steps: int, end: float) -> Array:
        h = end / steps
        u = grid**2 * np.cos(math.pi * grid)
        for step in range(steps):
            u = np.fft.irfft(np.exp(h * decay * (0.5 if step == 0 else 1)) * np.fft.rfft(u), nodes)
            growth = math.exp(pde.s * h)
            u = growth * u / np.sqrt(1 + u**2 * (growth**2 - 1))
        u = np.fft.irfft(np.exp(h * decay / 2) * np.fft.rfft(u), nodes)
        return np.append(u, u[0])

    end = 50
    coarse, middle, fine = (at_the_end(n, found.axes["t"][end])[:: nodes // 200] for n in (200, 400, 800))
    once, before = (4 * fine - middle) / 3, (4 * middle - coarse) / 3
    tolerance = load_arrays("allen_cahn")["tolerance"]
    assert abs((16 * once - before) / 15 - found.values[:, end, 0]).max() < tolerance


def test_allen_cahn_satisfies_its_terms() -> None:
    pde = AllenCahn()
    x, t = reference(pde).axes.values()
    u = reference(pde).values[..., 0]
    start = term(pde, "initial").residual(columns({"x": x}), columns({"u": u[:, 0]}))
    assert start.abs().max() < 1e-15
    slope = np.zeros_like(t)  # an even function of period 2 is flat at x = -1 and x = 1 after t = 0
    ends = columns({"u": u[0], "u_x": slope}, {"u": u[-1], "u_x": slope})
    assert term(pde, "periodic").residual(columns({}), ends).abs().max() < 1e-12
    assert abs(u - u[::-1]).max() < 1e-12
    # Off the grid's nodes, clear of the steep fronts that form and of the kink.
    axes = (np.linspace(-0.13, 0.13, 29), np.linspace(0.1, 0.95, 43))
    residual = term(pde, "residual")
    read = derivatives(pde, u[..., None], residual, axes)
    assert (
        residual.residual(points(pde, axes), columns(read)).abs().max()
        < 1e-5 * abs(derivatives(pde, u[..., None], U_T, axes)["u_t"]).max()
    )


def test_cavity_deviates_from_ghia_as_stated() -> None:
    """Quintic splines along the centre lines; the tables are less accurate than the reference."""
    arrays = load_arrays("cavity")
    x, y, values = arrays["x"], arrays["y"], arrays["values"]
    u = make_interp_spline(y, values[32, :, 0], k=5)(arrays["ghia_y"])
    v = make_interp_spline(x, values[:, 32, 1], k=5)(arrays["ghia_x"])
    assert x[32] == y[32] == 0.5
    assert len(arrays["ghia_u"]) == len(arrays["ghia_v"]) == 17
    assert 0.0045 < abs(u - arrays["ghia_u"]).max() < 0.0051
    assert 0.0090 < abs(v - arrays["ghia_v"]).max() < 0.0093


def test_cavity_walls() -> None:
    pde = Cavity()
    values = reference(pde).values
    u, v, p = values[..., 0], values[..., 1], values[..., 2]
    lid = term(pde, "lid").residual(columns({}), columns({"u": u[1:-1, -1], "v": v[1:-1, -1]}))
    assert lid.abs().max() == 0
    for wall in (np.s_[0, :-1], np.s_[-1, :-1], np.s_[:, 0]):
        assert term(pde, "walls").residual(columns({}), columns({"u": u[wall], "v": v[wall]})).abs().max() == 0
    assert np.isnan(p).all()
    assert np.argwhere(np.isnan(u)).tolist() == [[0, 64], [64, 64]]
    assert not np.isnan(v).any()


def test_cavity_satisfies_its_equations() -> None:
    """Without its pressure terms, the momentum residual is -grad p, whose curl vanishes, at this Re alone."""
    continuity, curl = cavity_residuals(Cavity())
    assert continuity < 1e-5
    assert curl < 0.02  # third derivatives of splines through nodes 1/64 apart
    assert cavity_residuals(Cavity(reynolds=125.0))[1] > 2 * curl


def cavity_residuals(pde: Cavity) -> tuple[float, float]:
    """Largest divergence, relative to u_x, and largest curl of grad p, relative to its parts, away from the walls."""
    data = Cavity()
    axis = reference(data).axes["x"]
    values = np.nan_to_num(reference(data).values, nan=1.0)
    residual = term(pde, "residual")
    read = derivatives(data, values, residual, (axis, axis))
    zero = np.zeros_like(values[..., 0])
    rows = residual.residual(points(pde, (axis, axis)), columns({**read, "p_x": zero, "p_y": zero})).numpy()
    first, second, divergence = rows.reshape(65, 65, 3).transpose(2, 0, 1)
    inner = np.linspace(0.2, 0.8, 41)
    y_of_first = RectBivariateSpline(axis, axis, first, kx=5, ky=5)(inner, inner, dy=1)
    x_of_second = RectBivariateSpline(axis, axis, second, kx=5, ky=5)(inner, inner, dx=1)
    middle = np.s_[13:-13, 13:-13]
    return (
        float(abs(divergence[middle]).max() / abs(read["u_x"][middle]).max()),
        float(abs(y_of_first - x_of_second).max() / abs(y_of_first).max()),
    )


def test_cavity_by_differences() -> None:
    """Second-order differences on 48 and 96 cells, extrapolated; they know nothing of the spectral method."""
    script = load_script()
    coarse, fine = (np.stack(script.cavity_differences(n, 100.0)) for n in (48, 96))
    ours = np.moveaxis(reference(Cavity()).values[..., :2], -1, 0)
    other = (4 * fine[:, ::2, ::2] - coarse) / 3
    # Nodes that both grids have, 0.2 and more from the lid.
    difference = abs(ours[:, ::4, ::4] - other[:, ::3, ::3])[:, :, :13]
    assert difference.max() < 5e-4


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_equations_are_satisfied(name: str) -> None:
    """By a spline of order 9 through the values, whose error falls with the tenth power of the steps."""
    pde = ORDINARY[name]
    found = reference(pde)
    t = found.axes["t"]
    splines = {f: make_interp_spline(t, found.values[:, i], k=9) for i, f in enumerate(pde.fields)}
    for each in pde.terms():
        at = t[:1] if each.name.startswith("initial") else np.linspace(0.1, 0.9, 77) * t[-1]
        read = {name: splines[name[0]](at, nu=name.count("t")) for name in each.derivatives}
        residual = each.residual(columns({"t": at}), columns(read))
        size = max(1.0, *(abs(values).max() for values in read.values()))
        assert residual.abs().max() < 1e-7 * size, each.name


def test_lotka_volterra_stays_on_its_orbit() -> None:
    pde = LotkaVolterra()
    u, v = reference(pde).values.T
    kept = pde.c * u - pde.d * np.log(u) + pde.b * v - pde.a * np.log(v)
    assert np.ptp(kept) < 1e-10
    assert u[0] == v[0] == 1.0


def test_lorenz_by_another_method() -> None:
    """A multistep method from the middle to the end, where the reference has one of order 8."""
    pde = Lorenz()
    t, values = reference(pde).axes["t"][200:], reference(pde).values[200:]

    def right(_: float, y: Array) -> Array:
        rates = {f"{f}_t": torch.zeros(1, dtype=torch.float64) for f in pde.fields}
        read = {**{f: torch.tensor([each]) for f, each in zip(pde.fields, y, strict=True)}, **rates}
        rows = term(pde, "residual").residual(columns({}), Columns(read, ""))
        return -rows[0].numpy()

    solution = solve_ivp(right, (t[0], t[-1]), values[0], "LSODA", t, rtol=1e-12, atol=1e-12)
    assert abs(solution.y.T - values).max() < 1e-8


@pytest.mark.parametrize("name", PERIODIC)
def test_periodic_equations_are_satisfied(name: str) -> None:
    """Fourier series in x and a spline in t, clear of the spline's ends; the mean is kept."""
    pde = PERIODIC[name]
    x, t = reference(pde).axes.values()
    u = reference(pde).values[:-1, :, 0]
    assert abs(u[0] - reference(pde).values[-1, :, 0]).max() < 1e-12
    assert abs(u.mean(0)).max() < 1e-12
    start = term(pde, "initial").residual(columns({"x": x[:-1]}), columns({"u": u[:, 0]}))
    assert start.abs().max() < 1e-14
    spline, at = make_interp_spline(t, u, k=9, axis=1), t[20:-20]
    k = 2j * math.pi / (x[-1] - x[0]) * np.arange(len(u) // 2 + 1)

    def derivative(name: str) -> Array:
        letters = name.partition("_")[2]
        values = np.fft.rfft(spline(at, nu=letters.count("t")), axis=0)
        return np.fft.irfft(values * k[:, None] ** letters.count("x"), len(u), axis=0)

    residual = term(pde, "residual")
    read = {name: derivative(name) for name in residual.derivatives}
    for name, parts in residual.operators.items():
        read[name] = np.sum([factor * derivative(part) for part, factor in parts.items()], axis=0)
    rows = residual.residual(points(pde, (x[:-1], at)), columns(read))
    assert rows.abs().max() < 1e-5 * abs(derivative("u_t")).max()


def load_script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "reference_solutions.py"
    spec = importlib.util.spec_from_file_location("reference_solutions", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_flow_past_the_cylinder() -> None:
    """Forces are those of John and Matthies 2001; mass is conserved and both momentum equations hold downstream."""
    arrays = load_arrays("cylinder")
    assert arrays["forces"] == pytest.approx([5.57953523, 0.01061895, 0.11752017], rel=1e-3)
    x, y, values = arrays["x"], arrays["y"], arrays["values"]
    within = (x[:, None] - 0.2) ** 2 + (y - 0.2) ** 2 < 0.05**2
    assert np.isnan(values[within]).all()
    flux = [float(make_interp_spline(y, u, k=5).integrate(0, 0.41)) for u in values[..., 0] if not np.isnan(u).any()]
    assert len(flux) > 100
    assert max(abs(np.array(flux) - 0.2 * 0.41)) < 1e-4 * 0.2 * 0.41
    behind = x > 0.38
    u, v, p = (RectBivariateSpline(x[behind], y, values[behind, :, k], kx=5, ky=5) for k in range(3))
    axes = np.linspace(0.5, 2.1, 41), np.linspace(0.03, 0.38, 31)
    for w, along in ((u, {"dx": 1}), (v, {"dy": 1})):
        inertia = u(*axes) * w(*axes, dx=1) + v(*axes) * w(*axes, dy=1)
        friction = 1e-3 * (w(*axes, dx=2) + w(*axes, dy=2))
        assert abs(inertia + p(*axes, **along) - friction).max() < 0.01 * 0.2**2 / 0.1
    assert abs(u(*axes, dx=1) + v(*axes, dy=1)).max() < 0.01 * 0.2 / 0.1
