"""Conditions as terms: what they read, and derivatives along normals, against closed forms and nested autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ntkrun.geometry import Box, Region, Table
from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Coefficient, Columns, ProblemError, Term, integral
from ntkrun.pde.check import floating_fields, unread_coefficients
from ntkrun.pde.conditions import conserved, dirichlet, interface, neumann, periodic, robin
from ntkrun.training.time_marching import TimeWindow
from tests.oracle import derivative, draw_batch, relative, values
from tests.problems import Circle

SQUARE = Box.of(x=(0.0, 1.0), y=(-1.0, 2.0), t=(0.0, 1.0))


class Single(PDE):
    """Some terms and nothing else."""

    def __init__(self, *terms: Term, domain: Box = SQUARE, fields: tuple[str, ...] = ("u",)) -> None:
        self.domain = domain
        self.given = terms
        self.fields = fields  # type: ignore[misc]

    def terms(self) -> tuple[Term, ...]:
        return self.given


def objective(pde: PDE) -> Objective:
    torch.manual_seed(0)
    return Objective(pde, MLP(6, 2, domain=pde.domain, outputs=len(pde.fields)).double())


def slope(net: torch.nn.Module, x: Tensor, letters: str, field: int = 0, coordinates: str = "xyt") -> Tensor:
    axes = [coordinates.index(letter) for letter in letters]
    return derivative(lambda z: values(net, z)[:, field], x, axes)


@pytest.mark.parametrize(
    ("axis", "end", "sign"), [("x", "low", -1.0), ("x", "high", 1.0), ("y", "low", -1.0), ("y", "high", 1.0)]
)
def test_faces_of_boxes_point_outwards(axis: str, end: str, sign: float) -> None:
    face = SQUARE.face(axis, end)  # type: ignore[arg-type]
    names = ("u_n", "u_nn", "u_nnn", "u_nnnn", "u_nt")
    own = objective(
        Single(Term("flux", (face,), names, lambda x, d: torch.stack([getattr(d, n) for n in names], dim=1)))
    )
    points, batch = draw_batch(own, [5])
    x = points["flux"][:, :3]
    expected = torch.cat([
        *(sign**k * slope(own.network, x, k * axis) for k in range(1, 5)),
        sign * slope(own.network, x, axis + "t"),
    ])  # fmt: skip
    assert relative(own.residuals(batch)[0], expected) < 1e-10


def test_faces_of_one_term_have_normals_of_their_own() -> None:
    own = objective(Single(neumann("flux", SQUARE.faces("x", "y"), lambda x: x.t)))
    points, batch = draw_batch(own, [40])
    x = points["flux"]
    outward = torch.stack(
        [(x[:, 0] == 1).double() - (x[:, 0] == 0).double(), (x[:, 1] == 2) * 1.0 - (x[:, 1] == -1) * 1.0]
    )
    assert outward.abs().sum(0).unique().tolist() == [1.0]
    expected = outward[0] * slope(own.network, x[:, :3], "x") + outward[1] * slope(own.network, x[:, :3], "y") - x[:, 2]
    assert relative(own.residuals(batch)[0], expected) < 1e-12


def test_normals_that_points_carry() -> None:
    """Up to second order on a circle: n' H n."""
    own = objective(
        Single(
            Term("flux", (Circle(0.3),), ("u_n", "u_nn"), lambda x, d: torch.stack([d.u_n, d.u_nn], dim=1)),
            domain=Box.of(x=(0.0, 1.0), t=(0.0, 1.0)),
        )
    )
    points, batch = draw_batch(own, [9])
    x, normal = points["flux"].split(2, dim=1)
    first = [slope(own.network, x, c, 0, "xt") for c in "xt"]
    second = {cc: slope(own.network, x, cc, 0, "xt") for cc in ("xx", "xt", "tt")}
    a, b = normal.unbind(1)
    expected = torch.cat(
        [a * first[0] + b * first[1], a * a * second["xx"] + 2 * a * b * second["xt"] + b * b * second["tt"]]
    )
    assert relative(own.residuals(batch)[0], expected) < 1e-10


def test_robin_and_dirichlet() -> None:
    left = SQUARE.face("x", "low")
    own = objective(Single(robin("film", left, 1.5, 2.0, lambda x: x.y), dirichlet("fixed", left, lambda x: x.t)))
    points, batch = draw_batch(own, [6, 7])
    film, fixed = (points[name][:, :3] for name in own.names)
    u = values(own.network, film)[:, 0]
    assert relative(own.residuals(batch)[0], 2 * u - film[:, 1] * slope(own.network, film, "x") - 1.5) < 1e-12
    assert relative(own.residuals(batch)[1], values(own.network, fixed)[:, 0] - fixed[:, 2]) < 1e-12


def test_periodic_conditions_up_to_an_order() -> None:
    own = objective(Single(periodic("around", SQUARE, "y", order=4)))
    points, batch = draw_batch(own, [6])
    x = points["around"]
    other = x + torch.tensor([0.0, 3.0, 0.0], dtype=torch.float64)
    expected = torch.cat([slope(own.network, x, k * "y") - slope(own.network, other, k * "y") for k in range(4)])
    assert bool((x[:, 1] == -1).all())
    assert relative(own.residuals(batch)[0], expected) < 1e-10


def test_an_interface_joins_two_fields() -> None:
    inner = Box.of(x=(0.4, 0.4), y=(-1.0, 2.0), t=(0.0, 1.0))
    own = objective(Single(interface("joint", inner, ("u", "v"), (3.0, 2.0)), fields=("u", "v")))
    points, batch = draw_batch(own, [6])
    x = points["joint"][:, :3]
    u, v = values(own.network, x).unbind(1)
    flux = 3 * slope(own.network, x, "x") - 2 * slope(own.network, x, "x", 1)
    assert relative(own.residuals(batch)[0], torch.cat([u - v, flux])) < 1e-12


def test_an_interface_with_jumps_between_media_that_vary() -> None:
    inner = Box.of(x=(0.4, 0.4), y=(-1.0, 2.0), t=(0.0, 1.0))
    jumps = (lambda x: x.y * x.t, lambda x: torch.sin(x.y))
    for given in (jumps[:1], jumps):
        term = interface("joint", inner, ("u", "v"), (lambda x: 1 + x.y**2, 2.0), jumps=given)
        own = objective(Single(term, fields=("u", "v")))
        points, batch = draw_batch(own, [6])
        x = points["joint"][:, :3]
        _, y, t = x.unbind(1)
        u, v = values(own.network, x).unbind(1)
        flux = (1 + y**2) * slope(own.network, x, "x") - 2 * slope(own.network, x, "x", 1)
        expected = torch.cat([u - v - y * t, flux - torch.sin(y) * (len(given) - 1)])
        assert relative(own.residuals(batch)[0], expected) < 1e-12
    with pytest.raises(ProblemError, match="loss term 'joint': 2 jumps for an interface of order 1"):
        interface("joint", inner, ("u", "v"), order=1, jumps=(1.0, 2.0))


def test_a_conserved_mean() -> None:
    mean = integral(lambda x, d: d.u, "u", x=(0.0, 1.0), y=(-1.0, 2.0), nodes=8, mean=True)
    own = objective(Single(conserved("mass", SQUARE.face("x", "low").face("y", "low"), mean, lambda x: x.t)))
    points, batch = draw_batch(own, [3])
    for row, t in zip(own.residuals(batch)[0], points["mass"][:, 2], strict=True):
        side = torch.linspace(0, 1, 401, dtype=torch.float64)
        grid = torch.cartesian_prod(side, 3 * side - 1)
        u = values(own.network, torch.cat([grid, t.expand(len(grid), 1)], dim=1)).view(401, 401)
        expected = torch.trapezoid(torch.trapezoid(u, dx=1 / 400), dx=1 / 400) - t
        assert abs(row - expected).item() < 1e-4  # of the trapezoidal rule


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (SQUARE, "a region has no normal, expected a box that is flat along one coordinate"),
        (SQUARE.face("x", "low").face("y", "low"), "a region has no normal"),
    ],
)
def test_regions_without_normals_are_refused(region: Region, message: str) -> None:
    with pytest.raises(ProblemError, match=f"loss term 'flux', derivative u_n: {message}"):
        objective(Single(neumann("flux", region)))


def test_a_corner_in_time_has_the_normal_in_space() -> None:
    own = objective(Single(neumann("flux", SQUARE.face("x", "high").face("t", "low"))))
    points, batch = draw_batch(own, [4])
    x = points["flux"][:, :3]
    assert relative(own.residuals(batch)[0], slope(own.network, x, "x")) < 1e-12


def test_windows_of_time_refuse_normals_at_the_initial_time() -> None:
    at_start = Term("start", (SQUARE.face("t", "low"),), ("u_n",), lambda x, d: d.u_n)
    pde = Single(at_start, domain=SQUARE)
    with pytest.raises(ProblemError, match="the initial condition 'start' reads u_n"):
        TimeWindow(pde, 1, 2, MLP(4, 1, domain=pde.domain)).terms()


class Held(Single):
    """A hard constraint, which fixes what its terms leave open."""

    def constrain(self, x: Columns, u: Columns) -> tuple[Tensor, ...]:
        return (x.x * u.u, x.x * u.p)


def test_fields_of_which_derivatives_alone_are_read() -> None:
    """A pressure is known up to a constant unless a condition, a mean or a measurement reads it."""
    flow = Term("flow", (SQUARE,), ("u", "u_x", "p_x"), lambda x, d: d.u * d.u_x + d.p_x)
    whole = Term("whole", (SQUARE,), (), lambda x, d: d.lap, operators={"lap": {"u_xx": 1.0, "u_yy": 1.0}})
    corner = Box.of(x=(0, 0), y=(0, 0), t=(0, 1))
    mean = conserved("mean", SQUARE.face("x", "low"), integral("p", x=(0.0, 1.0)), 0.0)

    def floating(*terms: Term, kind: type[Single] = Single) -> tuple[str, ...]:
        return floating_fields(kind(*terms, fields=("u", "p")))

    assert floating(flow) == ("p",)
    assert floating(whole, neumann("sides", SQUARE.faces("x"), field="p")) == ("u", "p")
    assert floating(flow, robin("sides", SQUARE.faces("x"), field="p")) == ()
    assert floating(flow, dirichlet("corner", corner, 0.0, "p")) == ()
    assert floating(flow, mean) == ()
    assert floating(flow, kind=Held) == ()
    measured = Single(flow, fields=("u", "p"))
    measured.measurements = {"p": Table(("x", "y", "t"), ("p",), torch.zeros(1, 4, dtype=torch.float64))}
    assert floating_fields(measured) == ()


def test_periodic_along_no_coordinate() -> None:
    with pytest.raises(ValueError, match="the box has no coordinate 'z', only x, y, t"):
        periodic("ends", SQUARE, "z")


def test_coefficients_that_no_term_declares() -> None:
    """Integrals may read one, too; what is read where the fields are made is not looked into."""
    fixed = dirichlet("fixed", SQUARE.faces("x"))
    read = Term("read", (SQUARE,), ("u_t", "a"), lambda x, d: d.u_t - d.a)
    within = conserved("within", SQUARE.face("x", "low"), integral("a", x=(0.0, 1.0)), 0.0)
    coefficients = (Coefficient(name="a", start=1.0), Coefficient(name="b", start=1.0))

    def unread(*terms: Term, kind: type[Single] = Single) -> tuple[str, ...]:
        pde = kind(*terms, fields=("u", "p"))
        pde.coefficients = coefficients
        return unread_coefficients(pde)

    assert unread(fixed) == ("a", "b")
    assert unread(read) == unread(within) == ("b",)
    assert unread(fixed, kind=Held) == ()
