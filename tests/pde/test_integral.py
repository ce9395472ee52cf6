"""Integrals against closed forms."""

from __future__ import annotations

import math
from types import MappingProxyType

import pytest
import torch

from ntkrun.geometry import Box, Shape, Table, ball, block, disc, rectangle
from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Integral, ProblemError, Term, integral
from ntkrun.pde.check import check_problem
from ntkrun.pde.conditions import conserved
from ntkrun.training.time_marching import TimeWindow

DOMAIN = Box.of(x=(0.0, 2.0), t=(0.0, 1.0))


def values(each: Integral, x: torch.Tensor) -> torch.Tensor:
    """Of the function x + t^2, whose integrand reads nothing else."""
    nodes, weights = each.nodes_at(x, ("x", "t"))
    u = nodes[:, 0] + nodes[:, 1] ** 2
    return (u.view(len(x), -1) * weights).sum(1)


POINTS = torch.tensor([[0.5, 0.25], [2.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
X, T = POINTS.unbind(1)
FORMS = {
    "along x": (integral("u", x=(0.0, 2.0)), 2 + 2 * T**2),
    "up to the point": (integral("u", x=(0.0, "x"), nodes=2), X**2 / 2 + X * T**2),
    "a moving window": (
        integral("u", t=(lambda x: x.t - x.x / 2, "t"), nodes=2),
        X**2 / 2 + (T**3 - (T - X / 2) ** 3) / 3,
    ),
    "mean": (integral("u", x=(0.0, 2.0), mean=True, nodes=1), 1 + T**2),
    "mean over nothing": (integral("u", t=(0.0, "t"), mean=True), X + T**2 / 3),
    "an area": (integral("u", x=(0.0, 2.0), t=(0.0, 1.0), nodes=3), torch.full_like(T, 2 + 2 / 3)),
    "a triangle": (integral("u", x=("t", 2.0), t=(0.0, 1.0), nodes=3), (2 - T) * (1 + T / 2 + 1 / 3)),
}


@pytest.mark.parametrize("name", FORMS)
def test_polynomials_are_integrated_exactly(name: str) -> None:
    each, expected = FORMS[name]
    assert (values(each, POINTS) - expected).abs().max() < 1e-14


def test_smooth_functions_to_round_off() -> None:
    nodes, weights = integral("u", x=(0.0, math.pi)).nodes_at(POINTS, ("x", "t"))
    found = (torch.sin(nodes[:, 0]).view(3, -1) * weights).sum(1)
    assert (found - 2).abs().max() < 1e-14


def test_over_a_shape_at_the_time_of_the_point() -> None:
    """Of x^2 t over a ring, and its mean; coordinates of the point in the plane do not matter."""
    ring = disc((0.0, 0.0), 1.0) - disc((0.25, 0.0), 0.5)
    x = torch.tensor([[0.3, 5.0, 0.5], [9.0, 0.0, 2.0]], dtype=torch.float64)
    second = math.pi / 4 - math.pi * (0.5**4 / 4 + 0.25 * 0.25**2)
    for mean, divisor in ((False, 1.0), (True, math.pi * 0.75)):
        each = integral("u", shape=ring, nodes=14, mean=mean)
        nodes, weights = each.nodes_at(x, ("x", "y", "t"))
        assert weights.shape == (2, each.count)
        found = ((nodes[:, 0] ** 2 * nodes[:, 2]).view(2, -1) * weights).sum(1)
        assert torch.allclose(found, x[:, 2] * second / divisor, rtol=1e-10)


class Mass(PDE):
    """The integral of u^2 over a square without its corner is 3 / 4 at every time."""

    def __init__(self) -> None:
        self.shape = rectangle(x=(0.0, 1.0), y=(0.0, 1.0)) - rectangle(x=(0.5, 1.0), y=(0.5, 1.0))
        self.domain = self.shape * Box.of(t=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        mass = integral(lambda x, d: d.u**2, "u", shape=self.shape, nodes=3)
        return (conserved("mass", Box.of(x=(0.0, 0.0), y=(0.0, 0.0), t=(0.0, 1.0)), mass, value=0.75),)


def test_a_conserved_integral_over_a_shape() -> None:
    """Residual and Jacobian row are those of a sum over the nodes, in time windows too."""
    for pde in (Mass(), TimeWindow(Mass(), 1, 2, None)):
        one = objective(pde)
        points = {"mass": torch.tensor([[0.0, 0.0, 0.6], [0.0, 0.0, 0.9]], dtype=torch.float64)}
        batch = one.batch(points)
        nodes, weights = (torch.from_numpy(each) for each in Mass().shape.quadrature(3)[:2])
        parameters = tuple(one.network.parameters())
        for row, found, t in zip(
            one.jacobians(batch)[0].dense(), one.residuals(batch)[0].flatten(), (0.6, 0.9), strict=True
        ):
            places = torch.cat([nodes, torch.full((len(nodes), 1), t, dtype=torch.float64)], dim=1)
            expected = (one.network(places)[:, 0] ** 2 @ weights) - 0.75
            assert found.item() == pytest.approx(expected.item(), rel=1e-12)
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(expected, parameters)])
            assert (row - gradient).norm() < 1e-12 * gradient.norm()


L_SHAPE = rectangle(x=(-1.0, 1.0), y=(-1.0, 1.0)) - rectangle(x=(0.0, 1.0), y=(0.0, 1.0))
RING = disc((0.0, 0.0), 1.0) - disc((0.25, 0.0), 0.5, "hole")
INSIDE_OUT = {  # with nodes, and how far both sides may be apart
    "an L shape": (L_SHAPE, 18, 1e-9),
    "a ring": (RING, 20, 1e-7),
    "a box": (Box.of(x=(0.0, 2.0), y=(-1.0, 0.5)), 18, 1e-9),
    "a ball": (ball((0.1, 0.0, -0.2), 0.8), 12, 1e-6),
    "a block with a hole": (block(x=(0.0, 1.0), y=(0.0, 1.0), z=(0.0, 1.0)) - ball((0.5, 0.4, 0.5), 0.3), 9, 5e-4),
}


class Divergence(PDE):
    """The flux of grad u through the boundary is the integral of its divergence, for every u."""

    def __init__(self, name: str) -> None:
        self.domain, self.nodes, _ = INSIDE_OUT[name]

    def terms(self) -> tuple[Term, ...]:
        letters = self.domain.coordinates
        second = tuple(f"u_{c}{c}" for c in letters)
        parts = self.domain.boundary()
        integrals = {
            "within": integral(
                lambda x, d: sum(getattr(d, each) for each in second), *second, shape=self.domain, nodes=self.nodes
            ),
            "flux": integral("u_n", shape=parts, nodes=self.nodes),
            "same": integral(
                lambda x, d: sum(getattr(x, f"n{c}") * getattr(d, f"u_{c}") for c in letters),
                *(f"u_{c}" for c in letters),
                shape=parts,
                nodes=self.nodes,
            ),
        }
        point = Box.of(**dict.fromkeys(letters, (0.0, 0.0)))
        return (
            Term(
                "flux",
                (point,),
                (),
                lambda x, d: torch.stack([d.within - d.flux, d.flux - d.same, d.flux], dim=1),
                integrals=integrals,
            ),
        )


@pytest.mark.parametrize("name", INSIDE_OUT)
def test_the_divergence_theorem_holds_for_a_network(name: str) -> None:
    """And the kernel's rows are those of nested automatic differentiation through the same sum, in float64."""
    torch.manual_seed(0)
    pde = Divergence(name)
    one = objective(pde)
    for parameter in one.network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    point = torch.zeros(1, len(one.pde.coordinates), dtype=torch.float64)
    batch = one.batch({"flux": point})
    gap, double, flux = one.residuals(batch)[0].flatten().tolist()
    assert abs(flux) > 5e-3
    assert abs(gap) < INSIDE_OUT[name][2]
    assert abs(double) < 1e-12
    points, weights = torch.zeros(0, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    for part in pde.domain.boundary():
        rule = part.quadrature(pde.nodes)  # type: ignore[attr-defined]
        points = torch.cat([points.view(-1, rule.points.shape[1]), torch.from_numpy(rule.points)])
        weights = torch.cat([weights, torch.from_numpy(rule.weights)])
    d = point.shape[1]
    places = points[:, :d].clone().requires_grad_()
    (slope,) = torch.autograd.grad(one.network(places).sum(), places, create_graph=True)
    expected = (slope * points[:, d:]).sum(1) @ weights
    assert flux == pytest.approx(expected.item(), rel=1e-11)
    parameters = tuple(one.network.parameters())
    gradients = torch.autograd.grad(expected, parameters, allow_unused=True)  # the last bias has none
    dense = torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, gradients, strict=True)]
    )
    row = one.jacobians(batch)[0].dense()[2]
    assert (row - dense).norm() < 1e-11 * dense.norm()


def test_a_rule_that_is_measured_says_its_error() -> None:
    class Moon(Divergence):
        def __init__(self) -> None:
            self.domain, self.nodes = ball((0, 0, 0), 1) - ball((1, 0, 0), 0.5, "bite"), 4

    within, *_ = objective(Moon()).rules
    assert within.startswith("loss term 'flux', integral 'within': 64 nodes, relative error of the rule ")
    assert 0 < float(within.split()[-1]) < 2e-4
    assert not objective(Divergence("a block with a hole")).rules


def test_along_a_boundary_at_the_time_of_the_point() -> None:
    """Of x t nx along a hole, whose normal points into it, and a length: of a part, and of all of them."""
    x = torch.tensor([[9.0, 9.0, 0.5], [9.0, 9.0, 2.0]], dtype=torch.float64)
    each = integral("u", shape=RING.boundary("hole"))
    nodes, weights = each.nodes_at(x, ("x", "y", "t"))
    found = ((nodes[:, 0] * nodes[:, 2] * each.columns_at(x)["nx"]).view(2, -1) * weights).sum(1)
    assert torch.allclose(found, -x[:, 2] * math.pi * 0.25, rtol=1e-13)
    assert weights.sum(1).tolist() == pytest.approx([math.pi] * 2, rel=1e-13)
    assert integral("u", shape=L_SHAPE.boundary()).rule.weights.sum() == pytest.approx(8.0, rel=1e-14)
    assert integral("u", shape=RING.boundary()).rule.weights.sum() == pytest.approx(3 * math.pi, rel=1e-13)


def test_a_product_with_time() -> None:
    """Of x^2 t^2 nx over the moving side of a half disc, and over all of it."""
    half = (disc((0.0, 0.0), 1.0) & rectangle(x=(0.0, 2.0), y=(-2.0, 2.0))) * Box.of(t=(0.0, 3.0))
    points, weights, _ = half.quadrature(10)
    assert (points[:, 0] ** 2 * points[:, 2] ** 2) @ weights == pytest.approx(9 * math.pi / 8, rel=1e-8)
    (side,) = half.boundary("circle")
    points, weights, _ = side.quadrature(8)
    assert side.columns == ("nx", "ny")
    assert (points[:, 0] ** 2 * points[:, 2] ** 2 * points[:, 3]) @ weights == pytest.approx(9 * 4 / 3, rel=1e-10)


class One(PDE):
    """A problem of one term with an integral."""

    domain = DOMAIN

    def __init__(self, each: Integral, at_start: bool = False) -> None:
        self.each = each
        self.region = (self.domain.face("t", "low"),) if at_start else (self.domain,)

    def terms(self) -> tuple[Term, ...]:
        return (Term("mass", self.region, (), lambda x, d: d.mass - 1, integrals={"mass": self.each}),)


def objective(pde: PDE) -> Objective:
    check_problem(pde)
    return Objective(pde, MLP(4, 1, domain=pde.domain).double())


class Unruled(Shape):
    """A shape of a user's own."""

    low = MappingProxyType({"x": 0.0, "t": 0.0})
    high = MappingProxyType({"x": 1.0, "t": 1.0})
    dimension = 2
    measure = 1.0

    def scale(self, unit: torch.Tensor) -> torch.Tensor:
        return unit

    def contains(self, points: torch.Tensor, slack: float = 0.0) -> torch.Tensor:
        return torch.ones(len(points), dtype=torch.bool)


WRONG = {
    "no coordinate": (integral("u", y=(0.0, 1.0)), "integral 'mass' runs over ['y'], expected coordinates"),
    "over nothing": (integral("u"), "integral 'mass' runs over [], expected coordinates"),
    "one end": (integral("u", x=(0.0,)), "integral 'mass' runs over x=(0.0,), expected two ends"),  # type: ignore[arg-type]
    "no end": (integral("u", x=(0.0, "y")), "integral 'mass' runs over x=(0.0, 'y'), expected two ends"),
    "end of no column": (
        integral("u", t=(lambda x: 0.5, "t")),  # type: ignore[arg-type,return-value]
        "integral 'mass': the end of the integral over t is of type float, expected a tensor of shape [3] (tests/pde/",
    ),
    "end that fails": (
        integral("u", t=(lambda x: x.y, "t")),
        "integral 'mass': the point has no 'y', only x, t",
    ),
    "infinite": (integral("u", x=(0.0, math.inf)), "integral 'mass' runs over x=(0.0, inf), expected two ends"),
    "no nodes": (integral("u", x=(0.0, 1.0), nodes=0), "integral 'mass' has nodes=0"),
    "no shape": (integral("u", shape=7), "integral 'mass' has shape=7, expected a box"),  # type: ignore[arg-type]
    "a table": (
        integral("u", shape=Table(("x", "t"), (), torch.zeros(1, 2))),  # type: ignore[arg-type]
        "integral 'mass' has shape=Table(",
    ),
    "no parts": (
        integral("u", shape=Box.of(t=(0.0, 1.0)).boundary()),
        "integral 'mass' has no region, expected a box, a shape or parts of a boundary",
    ),
    "parts unlike": (
        integral("u", shape=[DOMAIN, *DOMAIN.boundary("x_low")]),
        "integral 'mass' runs over regions whose points have [x, t] and [x, t, nx, nt]; they must be alike",
    ),
    "no normal": (
        integral("u_n", shape=DOMAIN),
        "integral 'mass', derivative u_n: its nodes have no normal, expected those of parts of a boundary",
    ),
    "no rule": (
        integral("u", shape=Unruled()),
        "integral 'mass': no rule of quadrature is known over a Unruled",
    ),
    "other letters": (integral("u", shape=disc((0, 0), 1)), "integral 'mass' runs over ['x', 'y'], expected coord"),
    "reads nothing": (integral(lambda x, d: x.x, x=(0.0, 1.0)), "integral 'mass' names no derivatives"),
    "no field": (integral("v", x=(0.0, 1.0)), "integral 'mass', derivative 'v': no field 'v'"),
    "undeclared": (
        integral(lambda x, d: d.u_x, "u", x=(0.0, 1.0)),
        "has no 'u_x', only u (tests/pde/test_",
    ),
    "raising": (
        integral(lambda x, d: d.u + torch.ones(7), "u", x=(0.0, 1.0)),
        "its integrand fails at 96 nodes, whose columns are of that length, with RuntimeError",
    ),
    "a number": (integral(lambda x, d: d.u.sum(), "u", x=(0.0, 1.0)), "the integrand is of shape []"),
    "no tensor": (integral(lambda x, d: 1.0, "u", x=(0.0, 1.0)), "the integrand is of float"),  # type: ignore[arg-type,return-value]
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named(name: str) -> None:
    each, message = WRONG[name]
    with pytest.raises(ProblemError) as caught:
        objective(One(each))
    assert str(caught.value).startswith("loss term 'mass'")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("pde", "message"),
    [
        (One(integral("u", t=(0.0, 1.0))), "an integral of loss term 'mass' reaches beyond a window"),
        (One(integral("u", x=(0.0, 2.0)), at_start=True), "the initial condition 'mass' has integrals"),
    ],
)
def test_windows_of_time_refuse_what_reaches_beyond_them(pde: PDE, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        TimeWindow(pde, 1, 2, MLP(4, 1, domain=pde.domain)).terms()


def test_a_shape_and_ends_together_are_refused() -> None:
    with pytest.raises(ValueError, match="over a shape or between ends of x, not both"):
        integral("u", shape=disc((0.0, 0.0), 1.0), x=(0.0, 1.0))
