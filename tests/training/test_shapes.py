"""Problems on shapes: errors on the nodes inside, predictions, pictures, time windows, whole runs and resumed ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from torch import Tensor, nn

import ntkrun
from ntkrun.commands.predict import main as predict
from ntkrun.config.component import read_component
from ntkrun.experiment.trained import TrainedRun
from ntkrun.geometry import Box, Face, disc, rectangle
from ntkrun.geometry.planar import Planar
from ntkrun.network import MLP
from ntkrun.pde import PDE, Columns, ProblemError, Reference, Term
from ntkrun.pde.check import check_problem
from ntkrun.plots.run import plot_solution
from ntkrun.training.evaluation import Evaluator
from ntkrun.training.nodes import Grid
from ntkrun.training.time_marching import TimeWindow
from tests.driver import Result
from tests.driver import ntkrun as command
from tests.oracle import values

RING = disc((0, 0), 1, "outer") - disc((0.25, 0), 0.4, "hole")


class Ring(PDE):
    """A function on a disc with a hole, in whose middle it is not known.

    known: closed | reference | gaps -- the last one on the whole square, with NaN in the hole.
    """

    domain = RING

    def __init__(self, known: str = "closed") -> None:
        self.known = known

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("u_xx", "u_yy"), lambda x, d: d.u_xx + d.u_yy - 4),
            Term("outer", self.domain.boundary("outer"), ("u",), lambda x, d: d.u - self.value(x)),
            Term("flux", self.domain.boundary("hole"), ("u_x", "u_y"), self.flux),
        )

    def flux(self, x: Columns, d: Columns) -> Tensor:
        return x.nx * (d.u_x - 2 * x.x) + x.ny * (d.u_y - 2 * x.y)

    @staticmethod
    def value(x: Columns) -> Tensor:
        u: Tensor = x.x**2 + x.y**2
        return u

    def exact(self, x: Columns) -> Tensor | None:
        if self.known == "reference":
            return None
        hole = (x.x - 0.25) ** 2 + x.y**2 < 0.4**2 - 1e-4
        assert not hole.any()
        return self.value(x)

    def reference(self) -> Reference | None:
        if self.known != "reference":
            return None
        x, y = np.linspace(-1, 1, 31), np.linspace(-1, 1, 41)
        X, Y = np.meshgrid(x, y, indexing="ij")
        return Reference({"x": x, "y": y}, (X**2 + Y**2)[..., None])  # what it says outside of the shape counts nowhere


def evaluator(pde: PDE, grid: int) -> tuple[Evaluator, MLP]:
    net = MLP(6, 2, domain=pde.domain, outputs=1).double()
    return Evaluator(pde, net, next(net.parameters()), grid), net


@pytest.mark.parametrize("known", ["closed", "reference"])
def test_errors_are_those_of_the_nodes_inside(known: str) -> None:
    found, net = evaluator(Ring(known), 33)
    solution = found.solution()
    assert isinstance(solution.nodes, Grid)
    x, y = (torch.from_numpy(a) for a in np.meshgrid(*solution.nodes.axes.values(), indexing="ij"))
    inside = ((x**2 + y**2 <= 1 + 1e-5) & ((x - 0.25) ** 2 + y**2 >= 0.4**2 - 1e-5)).numpy()
    assert solution.prediction.shape == (*x.shape, 1)
    assert np.array_equal(np.isfinite(solution.prediction[..., 0]), inside)
    assert solution.exact is not None
    assert np.array_equal(np.isfinite(solution.exact[..., 0]), inside)
    prediction = values(net, torch.stack([x.flatten(), y.flatten()], 1)).detach().numpy().reshape(x.shape)
    exact = (x**2 + y**2).numpy()
    errors = found.error()
    assert errors is not None
    expected = np.linalg.norm((prediction - exact)[inside]) / np.linalg.norm(exact[inside])
    assert errors.total == pytest.approx(expected, rel=1e-12)
    assert len(solution.nodes) == inside.sum()
    assert f"the {inside.sum()} nodes inside of a grid of" in str(solution.nodes)


def test_nodes_of_a_product_with_time_are_those_of_the_shape_at_every_time() -> None:
    axes = {"x": np.linspace(-1, 1, 21), "y": np.linspace(-1, 1, 22), "t": np.linspace(0, 2, 5)}
    product, plane = Grid.over(RING * Box.of(t=(0, 1)), axes), Grid.over(RING, {c: axes[c] for c in "xy"})
    assert product.inside is not None
    assert plane.inside is not None
    expected = np.zeros((21 * 22, 5), dtype=bool)
    expected[plane.inside, :3] = True
    assert np.array_equal(product.inside, np.flatnonzero(expected))


class Gaps(Ring):
    domain = Box.of(x=(-1.0, 1.0), y=(-1.0, 1.0))  # type: ignore[assignment]

    def terms(self) -> tuple[Term, ...]:
        return (Term("data", (self.domain,), ("u",), lambda x, d: d.u),)

    def exact(self, x: Columns) -> Tensor:
        return torch.where(x.x**2 + x.y**2 < 0.25, torch.nan, self.value(x))


def test_a_closed_form_may_leave_out_what_is_not_known() -> None:
    found, _ = evaluator(Gaps(), 21)
    solution = found.solution()
    assert solution.exact is not None
    known = np.isfinite(solution.exact)
    assert np.isfinite(solution.prediction).all()
    missing = int((~known).sum())
    assert f"exact() is no number at {missing} of 441 nodes, first at x=-0.4, y=" in found.about
    errors = found.error()
    assert errors is not None
    difference = (solution.prediction - solution.exact)[known]
    assert errors.total == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(solution.exact[known]), rel=1e-12)


class Inclusion(Gaps):
    """Two fields, one on each side of a circle."""

    fields = ("u", "v")

    def exact(self, x: Columns) -> Tensor:
        inside = x.x**2 + x.y**2 < 0.27  # no node lies on the circle
        return torch.stack([torch.where(side, self.value(x), torch.nan) for side in (inside, ~inside)], dim=1)


def test_what_is_not_known_is_said_by_field() -> None:
    found, _ = evaluator(Inclusion(), 21)
    inside = int((np.hypot(*np.meshgrid(*2 * [np.linspace(-1, 1, 21)])) ** 2 < 0.27).sum())
    assert (
        f"exact() is no number at {441 - inside} of 441 nodes for u, {inside} of 441 nodes for v, first at x=-1, y=-1; "
        in found.about
    )


class TwoSides(Gaps):
    """The same as Inclusion, with closed forms that hold everywhere and fields that do not live everywhere."""

    fields = ("u", "v")
    supports: ClassVar[Any] = {"u": disc((0, 0), 0.52), "v": rectangle(x=(-1, 1), y=(-1, 1)) - disc((0, 0), 0.52)}

    def exact(self, x: Columns) -> Tensor:
        return torch.stack([self.value(x), 2 + self.value(x)], dim=1)


def test_fields_have_values_where_they_live_alone(tmp_path: Path) -> None:
    pde = TwoSides()
    check_problem(pde)
    net = MLP(6, 2, domain=pde.domain, outputs=2).double()
    found = Evaluator(pde, net, next(net.parameters()), 21)
    assert found.about == ""
    solution, errors = found.solution(), found.error()
    X, Y = np.meshgrid(*2 * [np.linspace(-1, 1, 21)], indexing="ij")
    inside = X**2 + Y**2 < 0.27  # no node lies on the circle
    lives = np.stack([inside, ~inside], axis=-1)
    points = np.stack([X.ravel(), Y.ravel()], axis=1)
    given = values(net, torch.from_numpy(points)).detach().numpy().reshape(21, 21, 2)
    exact = np.stack([X**2 + Y**2, 2 + X**2 + Y**2], axis=-1)
    assert solution.exact is not None
    assert np.allclose(solution.prediction, np.where(lives, given, np.nan), rtol=1e-14, equal_nan=True)
    assert np.allclose(solution.exact, np.where(lives, exact, np.nan), rtol=1e-14, equal_nan=True)
    assert errors is not None
    for k, field in enumerate("uv"):
        own = lives[..., k]
        expected = np.linalg.norm((given - exact)[own, k]) / np.linalg.norm(exact[own, k])
        assert errors.fields[field] == pytest.approx(expected, rel=1e-12)
    run = TrainedRun(tmp_path, {"time_windows": 1}, pde, [net])
    predicted = run.predict(points, ["v_x", "u", "v"]).reshape(21, 21, 3)
    assert np.array_equal(np.isfinite(predicted), np.stack([~inside, inside, ~inside], axis=-1))
    assert np.allclose(predicted[..., 1:], solution.prediction, rtol=1e-14, equal_nan=True)


def test_an_exported_program_has_values_everywhere(tmp_path: Path) -> None:
    pde = TwoSides()
    net = MLP(4, 1, domain=pde.domain, outputs=2).double()
    run = TrainedRun(tmp_path, {"time_windows": 1, "dtype": "float64"}, pde, [net])
    assert run.export(tmp_path / "sides.pt2", ["v_x", "u"]) < 1e-13
    program = torch.export.load(tmp_path / "sides.pt2").module()
    x = torch.tensor([[0.0, 0.1], [0.9, 0.2]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(values(net, x)[:, 1].sum(), x)
    expected = torch.stack([slope[:, 0], values(net, x)[:, 0]], dim=1)
    assert torch.allclose(program(x.detach()), expected, rtol=1e-12)


def test_a_reference_stays_as_it_was_given() -> None:
    axes, given = {c: np.linspace(-1, 1, 5) for c in "xy"}, np.ones((5, 5, 2))

    class Referenced(TwoSides):
        def reference(self) -> Reference:
            return Reference(axes, given)

    pde = Referenced()
    found = Evaluator(pde, nn.Linear(2, 2).double(), torch.zeros((), dtype=torch.float64), 3)
    assert np.isfinite(given).all()
    assert found.solution().exact[2, 2].tolist() == pytest.approx([1, np.nan], nan_ok=True)  # type: ignore[index]


@pytest.mark.parametrize("supports", [{"w": Box.of(x=(0, 1), y=(0, 1))}, {"u": Box.of(x=(0, 1))}, {"u": 1}, "u"])
def test_supports_that_are_none_are_refused(supports: Any) -> None:
    pde = TwoSides()
    pde.supports = supports
    with pytest.raises(ProblemError, match=r"supports=.*expected a box or shape of x, y by field"):
        check_problem(pde)


class Nowhere(Gaps):
    def exact(self, x: Columns) -> Tensor:
        return torch.full_like(x.x, torch.nan)


def test_a_closed_form_without_any_value_is_refused() -> None:
    with pytest.raises(ProblemError, match=r"exact\(\) is a number nowhere"):
        evaluator(Nowhere(), 5)


def test_what_lies_outside_is_white() -> None:
    found, _ = evaluator(Ring(), 33)
    solution = found.solution()
    assert isinstance(solution.nodes, Grid)
    assert solution.exact is not None
    arrays = {
        **{f"axis_{c}": axis for c, axis in solution.nodes.axes.items()},
        "fields": np.array(["u"]),
        "prediction": solution.prediction,
        "exact": solution.exact,
        "error": solution.prediction - solution.exact,
    }
    figure = plot_solution(arrays)
    meshes = [mesh for axes in figure.axes for mesh in axes.collections if isinstance(mesh, QuadMesh)][:3]
    outside = np.isnan(solution.prediction[..., 0].T)
    for mesh in meshes[:2]:
        colours = mesh.to_rgba(mesh.get_array()).reshape(*outside.shape, 4)
        assert np.array_equal(colours[..., 3] == 0, outside)  # transparent on white


class Decay(PDE):
    """u_t = u_xx + u_yy on a square with a round hole, u = exp(-2 t) sin x sin y."""

    domain = (rectangle(x=(0, 3), y=(0, 2)) - disc((1.5, 1), 0.5, "hole")) * Box.of(t=(0, 1))

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx", "u_yy"), lambda x, d: d.u_t - d.u_xx - d.u_yy),
            Term("boundary", self.domain.boundary(), ("u",), lambda x, d: d.u - self.exact(x)),
            Term("initial", (self.domain.face("t", "low"),), ("u",), lambda x, d: d.u - self.exact(x)),
        )

    def exact(self, x: Columns) -> Tensor:
        return torch.exp(-2 * x.t) * torch.sin(x.x) * torch.sin(x.y)


def test_time_windows_of_a_product() -> None:
    check_problem(Decay())
    window = TimeWindow(Decay(), 0, 2, None)
    check_problem(window)
    assert (window.domain.low["t"], window.domain.high["t"]) == (0, 0.5)
    terms = {term.name: term for term in window.terms()}
    assert terms["residual"].region == (window.domain,)  # which adaptive points and point weights go by
    assert [part.high["t"] for part in terms["boundary"].region] == [0.5] * len(terms["boundary"].region)
    later = TimeWindow(Decay(), 1, 2, MLP(4, 1, domain=window.domain, outputs=1))
    (start,) = {term.name: term for term in later.terms()}["initial"].region
    assert (start.low["t"], start.high["t"]) == (0.5, 0.5)  # type: ignore[attr-defined]


CONFIG = "_target_: tests.training.test_shapes.{}\npoints: {}\nsampling: sobol\nresample_every: null\ngrid: 25\n"


def run(folder: Path, problem: str, points: str, *overrides: str) -> Result:
    (folder / "conf" / "pde").mkdir(parents=True, exist_ok=True)
    (folder / "conf" / "pde" / "own.yaml").write_text(CONFIG.format(problem, points))
    return command("--config-dir", "conf", "pde=own", *overrides, cwd=folder)


def test_a_run_on_a_shape_and_its_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "{residual: 200, outer: 60, flux: 40}"
    result = run(tmp_path, "Ring", points, "network.width=10", "network.depth=2", "iterations=40", "hydra.run.dir=run")
    assert result.status == 0, result.stderr
    error = json.loads((tmp_path / "run" / "summary.json").read_text())["rel_l2"]["final"]
    assert error < 1e-4
    with np.load(tmp_path / "run" / "points.npz") as drawn:
        assert {name: x.shape for name, x in drawn.items()} == {"residual": (200, 2), "outer": (60, 4), "flux": (40, 4)}
        assert RING.contains(torch.from_numpy(drawn["residual"])).all()
    assert (tmp_path / "run" / "plots" / "solution.png").stat().st_size > 10_000
    monkeypatch.chdir(tmp_path)
    trained = ntkrun.load("run", trust="tests.training.test_shapes")
    x = np.array([[0.9, 0.0], [-1.0, 0.0], [0.25 + 0.4, 0.0], [0.0, -1.0]])
    assert np.abs(trained.predict(x)[:, 0] - (x**2).sum(1)).max() < 1e-2
    for bad in ([0.25, 0.1], [0.8, 0.8]):
        with pytest.raises(ValueError, match=rf"point 1, x={bad[0]}, y={bad[1]}, lies outside of the domain"):
            trained.predict(np.array([[0.9, 0.0], bad]))
    with pytest.raises(SystemExit) as ended:
        predict(["run", "--trust", "tests.training.test_shapes", "--grid", "21", "--output", "grid.npz"])
    assert ended.value.code == 0
    with np.load("grid.npz") as grid:
        places = np.stack(np.meshgrid(grid["axis_x"], grid["axis_y"], indexing="ij"), -1).reshape(-1, 2)
        known = np.isfinite(grid["u"].reshape(-1))
        assert np.array_equal(known, RING.contains(torch.from_numpy(places)).numpy())
        assert np.abs(grid["u"].reshape(-1)[known] - (places[known] ** 2).sum(1)).max() < 1e-2


def test_a_run_in_time_windows_on_a_shape(tmp_path: Path) -> None:
    points = "{residual: 100, boundary: 60, initial: 60}"
    small = ["network.width=8", "network.depth=2", "plots=false"]
    result = run(tmp_path, "Decay", points, *small, "iterations=15", "time_windows=2", "hydra.run.dir=run")
    assert result.status == 0, result.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["rel_l2"]["final"] < 0.02


@pytest.mark.parametrize("setting", ["pde.sampling=adaptive", "pde.sampling=sobol"])
def test_resumed_runs_on_shapes_end_bit_for_bit_alike(setting: str, tmp_path: Path) -> None:
    points = "{residual: 60, boundary: 30, initial: 20}"
    common = [setting, "pde.resample_every=3", "optimizer=adam", "schedule=constant", "plots=false"]
    common += [
        "network.width=6",
        "network.depth=2",
        "log_every=5",
        "evaluate_every=5",
        "checkpoint_every=5",
        "trainer.compile=false",
    ]
    whole = run(tmp_path, "Decay", points, *common, "iterations=20", "hydra.run.dir=whole")
    assert whole.status == 0, whole.stderr
    part = run(tmp_path, "Decay", points, *common, "iterations=10", "hydra.run.dir=part")
    assert part.status == 0, part.stderr
    resumed = command("resume=part", "iterations=20", "trust=tests.training.test_shapes", cwd=tmp_path)
    assert resumed.status == 0, resumed.stderr
    with np.load(tmp_path / "whole" / "solution.npz") as a, np.load(tmp_path / "part" / "solution.npz") as b:
        assert np.array_equal(a["prediction"], b["prediction"], equal_nan=True)


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (RING.boundary("hole")[0], "the domain is a part of a boundary"),
        (Face(Box.of(x=(0, 0), y=(0, 1)), "x", -1), "the domain is of type Face, expected a Box"),
        (RING.polygon, "the domain is of type Polygon, expected a Box"),
    ],
)
def test_what_is_no_domain_is_refused(domain: object, message: str) -> None:
    class Wrong(Ring):
        pass

    Wrong.domain = domain  # type: ignore[assignment]
    with pytest.raises(ProblemError, match=message):
        check_problem(Wrong())


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shapely", None)
    with pytest.raises(ValueError, match=r"need the package shapely: pip install 'ntkrun\[shapes\]'"):
        read_component({"_target_": "ntkrun.pde.PoissonL"}, "pde", PDE).build()


def test_planar_shapes_compare_by_what_they_are() -> None:
    assert rectangle(x=(0, 1), y=(0, 1)) == rectangle(x=(0, 1), y=(0, 1))
    assert rectangle(x=(0, 1), y=(0, 1)) != rectangle(x=(0, 1), y=(0, 2))
    assert isinstance(RING, Planar)


def test_a_shape_says_what_it_is() -> None:
    text = "planar of area 2.639 with x in [-1, 1], y in [-1, 1], boundary: outer, hole"
    assert str(RING) == text
    assert repr(RING) == f"<{text}>"
    assert str(RING.boundary("hole")[0]) == "curve of length 2.513 with x in [-0.15, 0.65], y in [-0.4, 0.4]"
    timed = str(RING * Box.of(t=(0, 1)))
    assert timed.startswith(
        "product of volume 2.639 with x in [-1, 1], y in [-1, 1], t in [0, 1], boundary: outer, hole"
    )
