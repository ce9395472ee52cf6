"""Every problem's solution satisfies its own terms; built-in conditions hold exactly."""

import math
from collections.abc import Callable

import pytest
import torch

from ntkrun.geometry import Sampler
from ntkrun.network import MLP, with_coefficients
from ntkrun.network.constrained import constrained
from ntkrun.objective import Objective
from ntkrun.pde import (
    PDE,
    Advection,
    AllenCahn,
    Beam,
    Burgers,
    Cavity,
    Columns,
    Cylinder,
    Diffusion,
    Helmholtz,
    KleinGordon,
    KortewegDeVries,
    Kovasznay,
    KuramotoSivashinsky,
    LaplaceHole,
    Lorenz,
    LotkaVolterra,
    Poisson,
    Poisson2D,
    Poisson5D,
    Poisson10D,
    PoissonL,
    Regression,
    Schroedinger,
    TaylorGreen,
    VanDerPol,
    Wave,
)
from ntkrun.pde.poisson_l import INTENSITY
from ntkrun.pde.references import load_arrays
from tests.oracle import draw_points, relative, residual_rows, term_columns

CLOSED = {
    "poisson": Poisson(),
    "poisson-a2": Poisson(a=2),
    "wave": Wave(),
    "wave-a1-c3": Wave(a=1.0, c=3.0),
    "poisson2d": Poisson2D(),
    "poisson2d-a1-b3": Poisson2D(a=1, b=3),
    "helmholtz": Helmholtz(),
    "helmholtz-a2-k3": Helmholtz(a1=2, a2=1, k=3.0),
    "diffusion": Diffusion(),
    "diffusion-nu1-a1": Diffusion(nu=1.0, a=1),
    "advection": Advection(),
    "advection-c-3": Advection(c=-3.0),
    "klein_gordon": KleinGordon(),
    "klein_gordon-a2.5": KleinGordon(a=2.5),
    "beam": Beam(),
    "beam-a3-c1": Beam(a=3, c=1.0),
    "laplace_hole": LaplaceHole(),
    "laplace_hole-flux": LaplaceHole(centre=-0.4, radius=0.3, flux=True),
    "laplace_hole-middle": LaplaceHole(centre=0.0, radius=0.5),
    "regression": Regression(),
    "regression-one": Regression(frequencies=[3.0]),
    "schroedinger": Schroedinger(),
    "poisson5d": Poisson5D(),
    "poisson10d": Poisson10D(),
    "kovasznay": Kovasznay(),
    "kovasznay-re10": Kovasznay(reynolds=10.0),
    "taylor_green": TaylorGreen(),
    "taylor_green-nu1": TaylorGreen(nu=1.0),
}

HARD = {
    "poisson": Poisson(hard_boundary=True),
    "wave": Wave(hard_boundary=True),
    "poisson2d": Poisson2D(hard_boundary=True),
    "helmholtz": Helmholtz(hard_boundary=True),
    "diffusion": Diffusion(hard_boundary=True),
    "burgers": Burgers(hard_boundary=True),
    "klein_gordon": KleinGordon(hard_boundary=True),
    "beam": Beam(hard_boundary=True),
}

ALL = {
    **CLOSED,
    "burgers": Burgers(),
    "allen_cahn": AllenCahn(),
    "allen_cahn-kink": AllenCahn(kink=True),
    "cavity": Cavity(),
    "cylinder": Cylinder(),
    "cylinder-hard": Cylinder(hard_boundary=True),
    "cylinder-near": Cylinder(near=0.3),
    "poisson_l": PoissonL(),
    "poisson_l-corner": PoissonL(corner=True),
    "cavity-corner_flow": Cavity(corner_flow=True),
    "korteweg_de_vries": KortewegDeVries(),
    "kuramoto_sivashinsky": KuramotoSivashinsky(),
    "lotka_volterra": LotkaVolterra(),
    "van_der_pol": VanDerPol(mu=2.0, v0=1.0),
    "lorenz": Lorenz(),
    **{f"{name}-hard": pde for name, pde in HARD.items()},
}


def network(pde: PDE) -> MLP:
    return MLP(6, 2, domain=pde.domain, outputs=len(pde.fields)).double()


@pytest.mark.parametrize("pde", CLOSED.values(), ids=CLOSED)
def test_the_solution_has_no_residual(pde: PDE) -> None:
    objective = Objective(pde, network(pde))

    def solution(x: torch.Tensor) -> torch.Tensor:
        u = pde.exact(pde.columns(x))
        assert u is not None
        return u.reshape(len(x), -1)

    points = draw_points(objective, [50] * len(objective.terms))
    for i, term in enumerate(objective.terms):
        x = points[term.name]
        columns = term_columns(solution, x, objective, i)
        residual = term.residual(pde.columns(x, None, term.columns), columns)
        size = max(getattr(columns, name).abs().max().item() for name in (*term.derivatives, *term.operators))
        assert residual.abs().max() < 1e-8 * max(size, 1.0), term.name


@pytest.mark.parametrize("pde", ALL.values(), ids=ALL)
def test_residuals_of_a_network_agree_with_nested_autograd(pde: PDE) -> None:
    net: torch.nn.Module = network(pde)
    net = constrained(net, pde) if pde.constrains else net
    objective = Objective(pde, with_coefficients(net, pde.coefficients).double() if pde.coefficients else net)
    points = draw_points(objective, [5] * len(objective.terms))
    for ours, expected in zip(
        objective.residuals(objective.batch(points)), residual_rows(objective, points), strict=True
    ):
        assert relative(ours, expected) < 1e-10


@pytest.mark.parametrize("pde", HARD.values(), ids=HARD)
def test_a_hard_boundary_holds_exactly(pde: PDE) -> None:
    """Any network is made to meet the condition; every other term is still trained."""
    # The objective of the same problem without the option still has the boundary term.
    objective = Objective(type(pde)(), network(pde))
    assert pde.built_in == {"boundary"}
    assert [t.name for t in pde.terms()] == list(objective.names)
    i = objective.names.index("boundary")
    x = draw_points(objective, [80] * len(objective.terms))["boundary"]
    wrapped = constrained(
        torch.nn.Sequential(torch.nn.Linear(x.shape[1], 6), torch.nn.Tanh(), torch.nn.Linear(6, 1)), pde
    )
    columns = term_columns(wrapped.double(), x, objective, i)
    residual = objective.terms[i].residual(pde.columns(x), columns)
    assert residual.shape == (80,)
    assert residual.abs().max() < 1e-15


def test_velocities_past_the_cylinder_are_right_on_its_boundary() -> None:
    """Of any network: exactly at walls and cylinder, and to 1e-7 at the inlet; the outlet is left to the training."""
    pde = Cylinder(hard_boundary=True)
    wrapped = constrained(network(pde), pde)
    terms = {term.name: term for term in pde.terms()}
    assert pde.built_in == {"inlet", "walls", "cylinder"}
    for name, allowed in (("inlet", 2e-7), ("walls", 1e-15), ("cylinder", 1e-15)):
        x = Sampler(terms[name].region, 60, "sobol", 1).draw()
        u, v, _ = wrapped(x[:, :2]).unbind(1)
        residual = terms[name].residual(pde.columns(x[:, :2]), Columns({"u": u, "v": v}, "network"))
        assert residual.abs().max() < allowed
    far = torch.tensor([[1.0, 0.2], [0.2, 0.3]], dtype=torch.float64)
    other = constrained(network(pde), pde)
    assert ((wrapped(far) - other(far)).abs() > 1e-3).all()


def test_the_inversion_in_the_cylinder() -> None:
    """As complex numbers, 1.5 R / conj(z) for z from its middle; none unless it is asked for."""
    pde = Cylinder(inversion=True)
    x = Sampler((pde.domain,), 50, "sobol", 1).draw()
    along, across = pde.features(pde.columns(x))
    z = torch.complex(x[:, 0] - 0.2, x[:, 1] - 0.2)
    assert (torch.complex(along, across) - 0.075 / z.conj()).abs().max() < 1e-15
    assert Cylinder().features(pde.columns(x)) == ()


@pytest.mark.parametrize("near", [0.0, 0.2])
def test_points_near_the_cylinder(near: float) -> None:
    """A tenth of them in each of two rings, 0.05 and 0.01 wide, and those of the channel that lie there by chance."""
    pde = Cylinder(near=near)
    term = pde.terms()[0]
    x = Sampler(term.region, 2000, "sobol", 1, term.shares).draw()
    distance = torch.hypot(x[:, 0] - 0.2, x[:, 1] - 0.2) - 0.05
    channel = 2.2 * 0.41 - math.pi * 0.05**2
    assert distance.min() > 0
    for within, rings in ((0.01, 0.1 + 0.1 * (0.06**2 - 0.05**2) / (0.1**2 - 0.05**2)), (0.05, 0.2)):
        by_chance = math.pi * ((0.05 + within) ** 2 - 0.05**2) / channel
        expected = (1 - near) * by_chance + rings * near / 0.2
        assert (distance < within).double().mean() == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize("name", HARD)
def test_a_hard_boundary_leaves_the_interior_free(name: str) -> None:
    """Away from the boundary, the constrained value moves with the network's."""
    pde = HARD[name]
    x = pde.domain.scale(0.1 + 0.8 * torch.rand(20, len(pde.coordinates), dtype=torch.float64))
    columns = {c: x[:, i : i + 1] for i, c in enumerate(pde.coordinates)}
    u = torch.zeros(20, 1, dtype=torch.float64, requires_grad=True)
    (value,) = pde.constrain(Columns(columns, "points"), Columns({"u": u}, "network"))
    (slope,) = torch.autograd.grad(value.sum(), u)
    assert value.shape == (20, 1)
    assert slope.abs().min() > 1e-3


@pytest.mark.parametrize("name", ["advection", "allen_cahn", "korteweg_de_vries", "kuramoto_sivashinsky"])
def test_periods_are_those_of_the_periodic_term(name: str) -> None:
    pde = ALL[name]
    (term,) = [t for t in pde.terms() if t.name == "periodic"]
    assert dict(term.partner or {}) == dict(pde.periods) == {"x": pde.domain.high["x"] - pde.domain.low["x"]}
    assert term.region == (pde.domain.face("x", "low"),)


def test_the_schroedinger_solution_starts_from_two_solitons() -> None:
    x = torch.stack([torch.linspace(-5, 5, 41), torch.zeros(41)], 1).double()
    pde = Schroedinger()
    expected = torch.stack([2 / torch.cosh(x[:, 0]), torch.zeros(41)], 1)
    assert relative(pde.exact(pde.columns(x)), expected) < 1e-14


def test_poisson_needs_whole_waves() -> None:
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    pde = Poisson(a=3)
    u = pde.exact(pde.columns(x))
    assert u is not None
    assert u.abs().max() < 1e-14


def test_the_cavity_has_three_residuals_per_point() -> None:
    """A flow known exactly, rigid rotation: p = (x^2 + y^2) / 2, up to the walls."""
    pde = Cavity()
    objective = Objective(pde, network(pde))

    def rotation(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([-x[:, 1], x[:, 0], x.square().sum(1) / 2], dim=1)

    x = draw_points(objective, [50] * len(objective.terms))["residual"]
    residual = objective.terms[0].residual(pde.columns(x), term_columns(rotation, x, objective, 0))
    assert residual.shape == (50, 3)
    assert residual.abs().max() < 1e-14


def test_the_cavity_decays_like_a_vortex_array() -> None:
    """Viscous terms: the Taylor-Green vortex at t = 0 lacks just its unsteady term, u_t = -2 k^2 u / Re."""
    pde = Cavity(reynolds=7.0)
    objective = Objective(pde, network(pde))
    k = 2 * math.pi

    def vortices(x: torch.Tensor) -> torch.Tensor:
        X, Y = k * x[:, 0], k * x[:, 1]
        p = (torch.cos(2 * X) + torch.cos(2 * Y)) / 4
        return torch.stack([torch.sin(X) * torch.cos(Y), -torch.cos(X) * torch.sin(Y), p], dim=1)

    x = draw_points(objective, [50] * len(objective.terms))["residual"]
    residual = objective.terms[0].residual(pde.columns(x), term_columns(vortices, x, objective, 0))
    expected = torch.cat([2 * k**2 / 7 * vortices(x)[:, :2], torch.zeros(50, 1)], dim=1)
    assert relative(residual, expected) < 1e-12


@pytest.mark.parametrize("sign", [1, -1])
def test_the_corner_flow_solves_the_equations_as_far_as_they_are_singular(sign: int) -> None:
    """Walls, lid and continuity are met; what is left of momentum, which is 1/r in its terms, stays bounded.

    The lid moves in the direction of the sign; u, v and p are differentiated by nested autograd.
    """
    pde = Cavity(reynolds=7.0, corner_flow=True)

    def flow(point: torch.Tensor) -> torch.Tensor:
        return torch.stack(pde._corner(point[0], point[1], sign))

    sizes = []
    for r in (1e-2, 1e-4, 1e-6):
        angles = torch.linspace(0.1, 1.4, 7, dtype=torch.float64)
        inside = r * torch.stack([angles.cos(), angles.sin()], 1)
        values = torch.func.vmap(flow)(inside)
        # Columns are derivatives by X and Y; v points away from the lid's side, against Y, and X from the wall.
        values[:, 1] *= -1
        values[:, 0] *= sign
        turn = torch.tensor([sign, -1.0, 1.0], dtype=torch.float64)[:, None]
        gradients = torch.func.vmap(torch.func.jacrev(flow))(inside) * turn
        hessians = torch.func.vmap(torch.func.hessian(flow))(inside)
        laplacians = (hessians[:, :, 0, 0] + hessians[:, :, 1, 1]) * turn[:, 0]
        assert (gradients[:, 0, 0] + gradients[:, 1, 1]).abs().max() < 1e-14 / r
        for i in (0, 1):
            convection = values[:, 0] * gradients[:, i, 0] + values[:, 1] * gradients[:, i, 1]
            sizes.append((r * convection).abs().max())
            assert (convection + gradients[:, 2, i] - laplacians[:, i] / 7.0).abs().max() < 0.2
    assert min(sizes) > 0.05
    s = torch.linspace(0.01, 1, 20, dtype=torch.float64)
    on_lid = torch.func.vmap(flow)(torch.stack([s, torch.zeros_like(s)], 1))
    on_wall = torch.func.vmap(flow)(torch.stack([torch.zeros_like(s), s], 1))
    assert (on_lid[:, 0] - 1).abs().max() < 1e-14
    assert on_lid[:, 1].abs().max() < 1e-14
    assert on_wall[:, :2].abs().max() < 1e-14
    assert torch.isfinite(flow(torch.zeros(2, dtype=torch.float64))).all()


def test_the_kink_is_that_of_the_initial_state_and_diffuses() -> None:
    """Odd powers up to the third are those of x^2 cos(pi x) at t = 0; all but S is a flow of heat without reaction."""

    def added(pde: AllenCahn, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        (u,) = pde.constrain(Columns({"x": x, "t": t}, "x"), Columns({"u": torch.zeros_like(x)}, "u"))
        return u  # type: ignore[no-any-return]

    def derivative(f: Callable[[torch.Tensor], torch.Tensor], order: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return f if order == 0 else derivative(torch.func.grad(f), order - 1)

    def left(x: torch.Tensor) -> torch.Tensor:
        return x**2 * torch.cos(math.pi * x) - added(AllenCahn(kink=True), x, torch.zeros_like(x))

    near = torch.tensor(1 - 1e-5, dtype=torch.float64)
    assert derivative(left, 1)(near).abs() < 1e-3
    assert derivative(left, 3)(near).abs() < 1e-1

    def smooth(x: torch.Tensor) -> torch.Tensor:
        c = torch.cos(math.pi * x / 2)
        return 4 / math.pi * (c - 11 / 6 * c**3)

    pde = AllenCahn(nu=0.01, s=0.0, kink=True)
    for x, t in ((1.0, 0.5), (0.98, 0.1), (-0.9, 0.3), (0.2, 0.7)):
        x, t = (torch.tensor(value, dtype=torch.float64) for value in (x, t))
        rate = torch.func.grad(added, argnums=2)(pde, x, t)
        curvature = derivative(lambda x, t=t: added(pde, x, t), 2)(x)
        assert torch.isclose(rate - 0.01 * curvature, -0.01 * derivative(smooth, 2)(x), rtol=1e-9, atol=1e-12)
    slopes = [
        derivative(lambda x: added(pde, x, torch.full_like(x, 0.3)), 1)(torch.tensor(end).double())
        for end in (-1.0, 1.0)
    ]
    assert max(abs(slope) for slope in slopes) < 1e-12


def test_the_singular_function_of_the_l_shape() -> None:
    """It is harmonic, vanishes at both sides of the corner, and has the intensity that the reference has there."""
    pde = PoissonL(corner=True)

    def singular(point: torch.Tensor) -> torch.Tensor:
        zero, one = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
        (s,) = pde.constrain(Columns(dict(zip("xy", point, strict=True)), "x"), Columns({"u": zero, "c": one}, "u"))
        return s  # type: ignore[no-any-return]

    x = Sampler((pde.domain,), 200, "sobol", 0).draw()
    hessians = torch.func.vmap(torch.func.hessian(singular))(x)
    assert (hessians[:, 0, 0] + hessians[:, 1, 1]).abs().max() < 1e-10 * hessians.abs().max()
    s = torch.linspace(0.01, 1, 20, dtype=torch.float64)
    for side in (torch.stack([s, 0 * s], 1), torch.stack([0 * s, s], 1)):
        assert torch.func.vmap(singular)(side).abs().max() < 1e-14
    # Along the line that halves the shape, u = c r^(2/3) + r^2 log r / (3 pi) + e r^2 + O(r^(10/3)).
    values, radius = load_arrays("poisson_l")["values"], math.sqrt(2) / 40
    one, two = (
        (values[40 - k, 40 - k, 0] - r**2 * math.log(r) / (3 * math.pi)) / r ** (2 / 3)
        for k, r in ((1, radius), (2, 2 * radius))
    )
    assert one + (one - two) / (2 ** (4 / 3) - 1) == pytest.approx(INTENSITY, rel=1e-4)
