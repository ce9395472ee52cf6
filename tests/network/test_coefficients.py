"""Unknown coefficients: their values, rows of the Jacobian, standard errors, and training with them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ntkrun.geometry import Box, Table
from ntkrun.network import MLP, coefficient_values, with_coefficients
from ntkrun.network.coefficients import coefficient_slopes
from ntkrun.network.constrained import constrained
from ntkrun.objective import Objective
from ntkrun.objective.uncertainty import coefficient_errors
from ntkrun.pde import PDE, Coefficient, DiffusionInverse, ProblemError, Term
from ntkrun.pde.check import check_problem
from tests.driver import ntkrun
from tests.oracle import dense_jacobians, draw_batch

ALL_KINDS = (
    Coefficient(name="free", start=-2.0, scale=3.0),
    Coefficient(name="positive", start=0.5, positive=True),
    Coefficient(name="bounded", start=0.2, bounds=(0.0, 2.0)),
)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        values: Tensor = self.layers(x)
        return values


class ThreeUnknowns(DiffusionInverse):
    """A residual that is not linear in coefficients of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.coefficients = ALL_KINDS

    def terms(self) -> tuple[Term, ...]:
        names = ("u", "u_t", "u_xx", "free", "positive", "bounded")

        def residual(x: Any, d: Any) -> Tensor:
            value: Tensor = d.u_t - d.positive * d.u_xx + d.free * d.bounded**2 * d.u
            return value

        return (Term("residual", (self.domain,), names, residual), *super().terms()[1:])


class InTheTransform(ThreeUnknowns):
    """An output transform that reads the coefficients too."""

    def __init__(self) -> None:
        super().__init__()
        self.built_in = None

    def constrain(self, x: Any, u: Any) -> tuple[Any, ...]:
        return (u.u * u.bounded + u.free * x.x * x.x.sin() + u.positive * x.t**2,)


def test_values_and_slopes_against_the_transformations() -> None:
    network: Any = with_coefficients(MLP(4, 1, domain=Box.of(x=(0.0, 1.0))), ALL_KINDS)
    assert coefficient_values(network) == pytest.approx({"free": -2.0, "positive": 0.5, "bounded": 0.2})
    with torch.no_grad():
        network.coefficient.copy_(torch.tensor([0.5, 1.0, -0.7]))
    logistic = 1 / (1 + math.exp(0.7 - math.log(0.1 / 0.9)))
    expected = {"free": -0.5, "positive": 0.5 * math.e, "bounded": 2 * logistic}
    assert coefficient_values(network) == pytest.approx(expected)
    slopes = {"free": 3.0, "positive": 0.5 * math.e, "bounded": 2 * logistic * (1 - logistic)}
    assert coefficient_slopes(network) == pytest.approx(slopes)


@pytest.mark.parametrize("kind", [{}, {"positive": True}, {"bounds": (0.1, 2.5)}], ids=["free", "positive", "bounded"])
def test_a_scale_is_the_slope_at_the_start(kind: dict[str, Any]) -> None:
    """Whatever transformation keeps the coefficient where it may lie; the first step of Adam is in proportion to it."""
    moved = {}
    for scale in (None, 0.01, 3.0):
        c = Coefficient(name="c", start=0.4, scale=scale, **kind)
        network: Any = with_coefficients(MLP(4, 1, domain=Box.of(x=(0.0, 1.0))), (c,)).double()
        assert coefficient_values(network)["c"] == pytest.approx(0.4)
        assert coefficient_slopes(network)["c"] == pytest.approx(c.unit)
        adam = torch.optim.Adam([network.coefficient], lr=1e-6)
        network(torch.zeros(1, 1, dtype=torch.float64))[0, 1].backward()
        adam.step()
        moved[scale] = 0.4 - coefficient_values(network)["c"]
        with torch.no_grad():
            network.coefficient.fill_(-50.0 / c.unit)
        low = {"positive": 0.0, "bounds": 0.1}.get(next(iter(kind), ""), -math.inf)
        assert low <= coefficient_values(network)["c"] < 0.4
    natural = {"positive": 0.4, "bounds": 0.3 * 2.1 / 2.4}.get(next(iter(kind), ""), 0.4)
    assert moved == pytest.approx({None: 1e-6 * natural, 0.01: 1e-8, 3.0: 3e-6}, rel=1e-4)


@pytest.mark.parametrize("problem", [ThreeUnknowns, InTheTransform])
@pytest.mark.parametrize("route", ["structured", "per_point"])
def test_rows_of_the_jacobian(route: str, problem: type[ThreeUnknowns]) -> None:
    """Every route against back-propagation row by row in float64; the coefficients are part of theta."""
    pde = problem()
    inner: nn.Module = MLP(6, 2, domain=pde.domain) if route == "structured" else Plain()
    inner = constrained(inner, pde) if pde.constrains else inner
    objective = Objective(pde, with_coefficients(inner, pde.coefficients).double())
    assert objective.route == route
    points, batch = draw_batch(objective, [5, 4, 3, 6])
    blocks = dense_jacobians(objective, points)
    dense = torch.cat(blocks)
    ours = objective.jacobian(batch).dense()
    assert torch.allclose(ours, dense, rtol=1e-11, atol=1e-11 * float(dense.abs().max()))
    assert dense[:5, objective.layout.slices["coefficient"]].abs().min() > 0
    traces = torch.stack([block.square().sum() for block in blocks])
    assert torch.allclose(objective.traces(batch), traces, rtol=1e-11)


class Line(PDE):
    """Values of c + s x, with a network s x of one parameter: linear regression."""

    domain = Box.of(x=(0.0, 1.0))
    coefficients = (Coefficient(name="c", start=1.0),)

    def terms(self) -> tuple[Term, ...]:
        return (Term("data", (self.domain,), ("u", "c"), lambda x, d: d.u + d.c - torch.sin(40 * x.x)),)


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.slope * x


def test_standard_errors_are_those_of_linear_regression(caplog: pytest.LogCaptureFixture) -> None:
    pde = Line()
    network: Any = with_coefficients(Slope(), pde.coefficients).double()
    objective = Objective(pde, network)
    x = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    design = np.column_stack([np.ones(50), x.numpy()[:, 0]])
    best, squares, *_ = np.linalg.lstsq(design, np.sin(40 * x.numpy()[:, 0]))
    with torch.no_grad():
        network.coefficient.fill_(best[0] - 1)
        network.network.slope.fill_(best[1])
    covariance = np.linalg.inv(design.T @ design) * squares[0] / (50 - 2)
    errors = coefficient_errors(objective, objective.batch({"data": x}))
    assert errors == pytest.approx({"c": math.sqrt(covariance[0, 0])}, rel=1e-9)
    assert not caplog.text
    with caplog.at_level("INFO"):
        assert coefficient_errors(objective, objective.batch({"data": x[:2]})) == {"c": None}
    assert "no standard errors of c: 2 residuals do not determine 2 parameters" in caplog.text
    # Where it is 3 off, a step moves it by 3, in units of the errors that residuals of that size stand for.
    with torch.no_grad():
        network.coefficient.add_(3)
    unit = math.sqrt(np.linalg.inv(design.T @ design)[0, 0] * (squares[0] + 50 * 9) / (50 - 2))
    assert coefficient_errors(objective, objective.batch({"data": x})) == pytest.approx({"c": unit}, rel=1e-9)
    assert f"would still move c by {3 / unit:.2g} standard errors" in caplog.text
    assert 3 / unit > 3


@pytest.mark.parametrize(("curvature", "told_apart"), [(1.0, True), (1e-4, False)])
def test_of_coefficients_that_only_their_sum_determines_no_errors(
    curvature: float, told_apart: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """a + (1 + curvature x^2) b + c sin(9 x), where nothing but the curvature tells a and b apart."""

    class Nearly(PDE):
        domain = Box.of(x=(0.0, 1.0))
        coefficients = tuple(Coefficient(name=name, start=1.0) for name in ("a", "b", "c"))

        def terms(self) -> tuple[Term, ...]:
            def residual(x: Any, d: Any) -> Tensor:
                value: Tensor = d.u + d.a + d.b * (1 + curvature * x.x**2) + d.c * torch.sin(9 * x.x)
                return value - torch.sin(40 * x.x)

            return (Term("data", (self.domain,), ("u", "a", "b", "c"), residual),)

    pde = Nearly()
    objective = Objective(pde, with_coefficients(Slope(), pde.coefficients).double())
    x = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    batch = objective.batch({"data": x})
    z = x.numpy()[:, 0]
    design = np.column_stack([np.ones(50), 1 + curvature * z**2, np.sin(9 * z), z])
    variance = float(objective.residuals(batch)[0].detach().square().mean()) * 50 / (50 - 4)
    root = np.linalg.inv(np.linalg.qr(design, mode="r"))
    expected = np.sqrt(variance * np.square(root).sum(1))
    errors = coefficient_errors(objective, batch)
    assert errors["c"] == pytest.approx(expected[2], rel=1e-6)
    assert errors["a"] == (pytest.approx(expected[0], rel=1e-6) if told_apart else None)
    assert errors["b"] == (pytest.approx(expected[1], rel=1e-6) if told_apart else None)
    assert ("only combinations of a, b are determined" in caplog.text) != told_apart


def test_standard_errors_are_those_of_all_rows_of_a_table() -> None:
    """Of which a batch has some; those of half of the rows would be larger by the square root of two."""

    class Tabled(Line):
        def terms(self) -> tuple[Term, ...]:
            x = torch.linspace(0, 1, 50, dtype=torch.float64)
            table = Table(("x",), ("v",), torch.stack([x, torch.sin(40 * x)], dim=1))
            return (Term("data", (table,), ("u", "c"), lambda x, d: d.u + d.c - x.v),)

    pde = Tabled()
    objective = Objective(pde, with_coefficients(Slope(), pde.coefficients).double())
    (table,) = pde.terms()[0].region
    assert isinstance(table, Table)
    whole, half = (
        coefficient_errors(objective, objective.batch({"data": rows})) for rows in (table.rows, table.rows[::2])
    )
    assert half == whole
    residuals = objective.residuals(objective.batch({"data": table.rows}))[0].detach().numpy()
    design = np.column_stack([np.ones(50), table.rows[:, 0].numpy()])
    variance = np.linalg.inv(design.T @ design)[0, 0] * (residuals**2).mean() * 50 / 48
    assert whole["c"] == pytest.approx(math.sqrt(variance), rel=1e-9)


class Decay(PDE):
    """u_t = -c u with five measured values of u, known to 0.1."""

    domain = Box.of(t=(0.0, 1.0))
    coefficients = (Coefficient(name="c", start=1.0),)

    def __init__(self) -> None:
        t = torch.linspace(0, 1, 5, dtype=torch.float64)
        self.errors = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0], dtype=torch.float64) / 10
        self.measurements = {"u": Table(("t",), ("u",), torch.stack([t, torch.exp(-t) + self.errors], dim=1))}

    def terms(self) -> tuple[Term, ...]:
        return (Term("residual", (self.domain,), ("u", "u_t", "c"), lambda x, d: d.u_t + d.c * d.u + 1e-6 * x.t),)


class Falling(nn.Module):
    """a exp(-b t), and parameters that change nothing to first order."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))
        self.idle = nn.Parameter(torch.zeros(20))

    def forward(self, x: Tensor) -> Tensor:
        return self.a * torch.exp(-self.b * x) + self.idle.square().sum()


def test_equations_are_read_at_more_points_where_rows_are_few() -> None:
    """Then c is as uncertain as in the regression of the five values on a exp(-c t), whose rows the equation joins."""
    pde = Decay()
    network: Any = with_coefficients(Falling(), pde.coefficients).double()
    objective = Objective(pde, network)
    few = {"residual": torch.linspace(0.1, 0.9, 4, dtype=torch.float64)[:, None], "data": pde.measurements["u"].rows}
    (error,) = coefficient_errors(objective, objective.batch(few)).values()
    t = few["data"][:, 0].numpy()
    design = np.column_stack([np.exp(-t), -t * np.exp(-t)])
    variance = float(pde.errors.square().mean()) * np.linalg.inv(design.T @ design)[1, 1]
    assert error == pytest.approx(math.sqrt(variance * 4 / 3), rel=0.02)  # N / (N - P) of 4 rows per parameter
    assert objective.layout.size == 23


class Curve(Line):
    """Three coefficients, of which the last two stand for the same."""

    coefficients = tuple(Coefficient(name=name, start=1.0) for name in ("a", "b", "c"))

    def terms(self) -> tuple[Term, ...]:
        def residual(x: Any, d: Any) -> Tensor:
            value: Tensor = d.u + d.a * torch.cos(3 * x.x) + d.b * x.x**2 + self.double * d.c * x.x**2
            return value - torch.sin(40 * x.x)

        return (Term("data", (self.domain,), ("u", "a", "b", "c"), residual),)

    double = 0.0


class Same(Curve):
    double = 2.0


def test_standard_errors_of_several_coefficients() -> None:
    """Each with all others and the network free; those that cannot be told from each other have none."""
    x = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None]
    columns = [np.cos(3 * x.numpy()[:, 0]), x.numpy()[:, 0] ** 2, x.numpy()[:, 0]]
    design = np.column_stack(columns)
    for pde in (Curve(), Same()):
        network: Any = with_coefficients(Slope(), pde.coefficients).double()
        objective = Objective(pde, network)
        batch = objective.batch({"data": x})
        (residuals,) = objective.residuals(batch)
        free = objective.layout.size
        variance = float(residuals.detach().square().mean()) * 50 / (50 - free)
        errors = coefficient_errors(objective, batch)
        expected = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
        assert errors["a"] == pytest.approx(expected[0], rel=1e-9)
        assert errors["b"] == (pytest.approx(expected[1], rel=1e-9) if not pde.double else None)
        assert errors["c"] is None


@pytest.mark.parametrize(
    ("coefficient", "message"),
    [
        (Coefficient(name="u", start=1.0), "of no field"),
        (Coefficient(name="t", start=1.0), "of no field and no coordinate"),
        (Coefficient(name="lambda_1", start=1.0), "without underscores"),
        (Coefficient(name="c", start=math.nan), "nan is no finite number"),
        (Coefficient(name="c", start=-1.0, positive=True), "starts above 0"),
        (Coefficient(name="c", start=1.0, bounds=(2.0, 3.0)), "does not lie between"),
        (Coefficient(name="c", start=1.0, scale=0.0), "scale=0.0"),
        ("c", "expected a tuple"),
    ],
    ids=["field", "coordinate", "underscore", "not-finite", "negative", "outside", "scale", "kind"],
)
def test_refused(coefficient: Any, message: str) -> None:
    pde = DiffusionInverse()
    pde.coefficients = (coefficient,)
    with pytest.raises(ProblemError, match=message):
        check_problem(pde)


SMALL = ["pde=diffusion_inverse", "network=mlp", "network.width=12", "network.depth=2", "network.activation=sin"]
QUIET = ["pde.grid=20", "progress=false", "threads=1", "trainer.compile=false"]


@pytest.mark.parametrize("weights", ["none", "exact", "sketched"])
def test_diffusivity_within_one_percent(weights: str, tmp_path: Path) -> None:
    """From clean data, started ten times too large."""
    result = ntkrun(
        *(*SMALL, *QUIET, "optimizer=gauss_newton", f"weights={weights}", "iterations=25", "plots=false"), cwd=tmp_path
    )
    assert result.status == 0, result.stderr
    found = json.loads((tmp_path / result.directory / "summary.json").read_text())["coefficients"]["nu"]
    assert abs(found["value"] / 0.05 - 1) < 0.01
    assert found["true"] == 0.05
    assert 0 < found["standard_error"] < 0.01
    metrics = pd.read_csv(tmp_path / result.directory / "metrics.csv")
    assert metrics["coefficient/nu"].iloc[0] == pytest.approx(0.5)
    assert metrics["coefficient/nu"].iloc[-1] == pytest.approx(found["value"], rel=1e-12)
    assert "coefficient nu" in result.stdout


def test_first_order_optimisers_move_coefficients_and_resume(tmp_path: Path) -> None:
    common = [*SMALL, *QUIET, "optimizer=adam", "schedule=constant", "dtype=float64", "log_every=5"]
    for name, length in (("half", 10), ("whole", 20)):
        result = ntkrun(*common, f"iterations={length}", f"hydra.run.dir={name}", cwd=tmp_path)
        assert result.status == 0, result.stderr
    assert (tmp_path / "whole" / "plots" / "coefficients.png").exists()
    resumed = ntkrun("resume=half", "iterations=20", "plots=false", cwd=tmp_path)
    assert resumed.status == 0, resumed.stderr
    half, whole = (pd.read_csv(tmp_path / name / "metrics.csv")["coefficient/nu"] for name in ("half", "whole"))
    assert whole.iloc[-1] != whole.iloc[0]
    pd.testing.assert_series_equal(half, whole)


def test_time_windows_are_refused(tmp_path: Path) -> None:
    result = ntkrun(*SMALL, *QUIET, "time_windows=2", cwd=tmp_path)
    assert result.status == 2
    assert "the unknown coefficients belong to all of time" in result.stderr
