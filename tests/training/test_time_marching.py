"""Time marching."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ntkrun.geometry import Box
from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Burgers, Poisson, ProblemError, Term, Wave
from ntkrun.training.time_marching import TimeWindow, frozen, may_march, time_edges
from tests.cli.test_resume import assert_same_end, checkpoint, resume, start, steps, stop_at, summary
from tests.driver import assert_refused, ntkrun
from tests.oracle import derivative, draw_batch, relative, values

__all__ = ["stop_at"]

MARCH = ["pde=wave", "pde.points.residual=30", "pde.points.boundary=21", "pde.points.initial=10", "time_windows=3"]


def test_edges() -> None:
    assert time_edges(Box.of(x=(0.0, 1.0), t=(1.0, 2.5)), 3) == [1.0, 1.5, 2.0, 2.5]


def test_the_first_window_has_the_terms_of_the_whole() -> None:
    whole, window = Wave(), TimeWindow(Wave(), 0, 4, None)
    assert may_march(whole)
    assert (window.domain.low["t"], window.domain.high["t"]) == (0, 0.25)
    assert [term.name for term in window.terms()] == [term.name for term in whole.terms()]
    assert all(box.high["t"] == 0.25 for term in window.terms()[:2] for box in term.region)
    assert all(box.high["t"] == 0 for term in window.terms()[2:] for box in term.region)


def test_later_windows_ask_for_continuity() -> None:
    """Initial terms become the jumps of u and u_t; nothing else changes."""
    whole = Wave()
    before = frozen(MLP(6, 2, domain=whole.domain, generator=torch.Generator().manual_seed(1)).double())
    window = TimeWindow(whole, 2, 4, before)
    network = MLP(6, 2, domain=window.domain, generator=torch.Generator().manual_seed(2)).double()
    objective = Objective(window, network)
    points, batch = draw_batch(objective, [5, 4, 3, 3])
    assert all((x[:, 1] >= 0.5).all() and (x[:, 1] <= 0.75).all() for x in points.values())
    rows = objective.residuals(batch)
    for k, axes in ((2, []), (3, [1])):
        x = points[objective.names[k]]
        assert (x[:, 1] == 0.5).all()
        new, old = (derivative(lambda z, n=n: values(n, z)[:, 0], x, axes) for n in (network, before))
        assert relative(rows[k], (new - old).detach()) < 1e-12
    assert objective.route == "structured"


def test_references_are_cut() -> None:
    whole, window = Burgers().reference(), TimeWindow(Burgers(), 1, 4, MLP(4, 1, domain=Burgers().domain)).reference()
    assert whole is not None
    assert window is not None
    assert window.axes["t"][[0, -1]].tolist() == [0.25, 0.5]
    assert np.array_equal(window.values, whole.values[:, 25:51])


class Insulated(PDE):
    """A normal derivative is given at the ends, whose points carry normals."""

    domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx"), lambda x, d: d.u_t - d.u_xx),
            Term("ends", self.domain.boundary("x_low", "x_high"), ("u_n",), lambda x, d: d.u_n - x.nx * x.t),
            Term("initial", self.domain.boundary("t_low"), ("u",), lambda x, d: d.u),
        )


def test_faces_with_normals_are_cut() -> None:
    """Points of a window lie in its part of time and keep their normals; rows are +-u_x - (+-t)."""
    before = frozen(MLP(4, 1, domain=Insulated.domain).double())
    window = TimeWindow(Insulated(), 1, 2, before)
    network = MLP(4, 1, domain=window.domain).double()
    objective = Objective(window, network)
    points, batch = draw_batch(objective, [4, 6, 5])
    ends, start = points["ends"], points["initial"]
    assert ends.shape == (6, 4)
    assert (ends[:, 1] >= 0.5).all()
    assert set(ends[:, 2].tolist()) == {-1.0, 1.0}
    assert (start[:, 1:] == start.new_tensor([0.5, 0.0, -1.0])).all()
    rows = objective.residuals(batch)
    slope = derivative(lambda z: values(network, z)[:, 0], ends[:, :2], [0])
    assert relative(rows[1].flatten(), (ends[:, 2] * (slope - ends[:, 1])).detach()) < 1e-12
    jump = values(network, start[:, :2]) - values(before, start[:, :2])
    assert relative(rows[2].flatten(), jump.flatten().detach()) < 1e-12


class Final(PDE):
    """A condition at the end of time."""

    domain = Box.of(t=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        return (Term("final", (self.domain.face("t", "high"),), ("u",), lambda x, d: d.u),)


class Delayed(PDE):
    """A window does not know what was before it."""

    domain = Box.of(t=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        return (Term("delay", (self.domain,), ("u", "u_t"), lambda x, d: d.u_t + d.partner.u, {"t": -1.0}),)


class Hard(Wave):
    """As if the initial state were built in."""

    def __init__(self) -> None:
        super().__init__()
        self.built_in = frozenset({"initial"})


@pytest.mark.parametrize(
    ("pde", "message"),
    [
        (Poisson(), "no coordinate t"),
        (Final(), "loss term 'final' lives neither on all of time nor at the initial time"),
        (Delayed(), "loss term 'delay' reads the solution at other times"),
        (Hard(), "the condition 'initial' is built in for the initial time only"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PDE) else "",
)
def test_problems_that_cannot_be_split(pde: PDE, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        TimeWindow(pde, 0, 2, None).terms()
    assert not may_march(pde)


@pytest.mark.parametrize(
    "overrides", [["pde=poisson", "time_windows=2"], ["pde=wave", "time_windows=2", "diagnostics=spectrum"]]
)
def test_wrong_windows_are_refused(overrides: list[str], tmp_path: Path) -> None:
    assert_refused(ntkrun(*overrides, cwd=tmp_path), tmp_path, "time_windows")


def test_a_march(tmp_path: Path) -> None:
    """Every step has one row, and the solution on all of time is that of the networks, each in its window."""
    run = tmp_path / "run"
    assert start(run, *MARCH).status == 0
    assert steps(run / "metrics.csv") == list(range(0, 91, 5))
    assert steps(run / "weights.csv") == list(range(0, 90, 3))
    assert (summary(run)["step"], summary(run)["iterations"]) == (90, 90)
    state = checkpoint(run)
    assert len(state["earlier"]) == 2
    with np.load(run / "solution.npz") as file:
        solution = dict(file)
    x, t = (a.ravel() for a in np.meshgrid(solution["axis_x"], solution["axis_t"], indexing="ij"))
    points = torch.tensor(np.stack([x, t], axis=1), dtype=torch.float32)
    edges = [0, 1 / 3, 2 / 3, 1]
    expected = np.full(len(x), np.nan)
    for k, parameters in enumerate([*state["earlier"], state["network"]]):
        network = MLP(8, 2, domain=Box.of(x=(0.0, 1.0), t=(edges[k], edges[k + 1])))
        network.load_state_dict(parameters)
        inside = (t >= edges[k]) & (t <= edges[k + 1] + 1e-6) if k == 0 else (t > edges[k] + 1e-6)
        expected[inside] = values(network, points)[:, 0].detach().numpy()[inside]
    assert np.abs(solution["prediction"].ravel() - expected).max() < 1e-6
    error = np.linalg.norm(solution["error"]) / np.linalg.norm(solution["exact"])
    assert summary(run)["rel_l2"]["final"] == pytest.approx(error, rel=1e-6)
    assert summary(run)["rel_l2"]["best"] is None


@pytest.mark.parametrize("stop", [13, 30, 43], ids=["first-window", "between-windows", "second-window"])
def test_a_march_goes_on(stop: int, tmp_path: Path, stop_at: Callable[[int], None]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert start(whole, *MARCH).status == 0
    stop_at(stop)
    assert start(parts, *MARCH).status == 143
    assert summary(parts)["step"] == stop
    stop_at(1000)
    resumed = resume(parts)
    assert resumed.status == 0, resumed.stderr
    assert_same_end(whole, parts)


def test_a_march_cannot_be_made_longer(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert start(run, *MARCH, "iterations=3").status == 0
    result = resume(run, "iterations=6")
    assert (result.status, result.stdout) == (2, "")
    assert "time windows" in result.stderr


def test_time_that_is_up_ends_every_window(tmp_path: Path) -> None:
    """The first one step after step 0, the others after their first rows."""
    run = tmp_path / "run"
    assert start(run, *MARCH, "stop.seconds=1e-6").status == 0
    assert steps(run / "metrics.csv") == [0, 1, 6, 7, 12, 13]
    assert len(checkpoint(run)["earlier"]) == 2


def test_a_target_ends_its_window_only(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert start(run, *MARCH, "stop.loss=1e9").status == 0
    assert summary(run)["step"] == 10  # the first window at step 0, the others at their first rows, after 5 steps
    assert steps(run / "metrics.csv") == [0, 5, 10]
    assert len(checkpoint(run)["earlier"]) == 2
