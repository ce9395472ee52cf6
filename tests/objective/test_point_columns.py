"""Points that carry further columns: drawn, kept, compiled and ordered as points without."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch

from ntkrun.common.state_schema import StateError, read_state
from ntkrun.geometry import Box, Sampler
from ntkrun.objective import Objective
from ntkrun.objective.chunked import ChunkedObjective
from ntkrun.optimizer import Adam
from ntkrun.pde import PDE, ProblemError, Term
from ntkrun.pde.check import check_problem
from ntkrun.steps.compiled import CompiledStepper
from ntkrun.steps.compiled_chunks import ChunkedStepper
from ntkrun.steps.cost_model import CompileChoice
from ntkrun.steps.eager import Stepper
from ntkrun.steps.graph import Compiler
from ntkrun.training.collocation import PointSource
from ntkrun.weights import Exact, Request, Sketched
from tests.oracle import draw_batch, relative
from tests.problems import TWO, Carried, Circle, mlp

COUNTS = {"residual": 20, "flux": 8, "slope": 7, "jump": 5}


def carried() -> Objective:
    torch.manual_seed(1)
    pde = Carried()
    return Objective(pde, mlp(pde.domain).double())


def source(objective: Objective, every: int | None = 1) -> PointSource:
    return PointSource(objective, COUNTS, "sobol", every, seed=3)


def test_points_lie_on_their_region_with_its_columns() -> None:
    points = Sampler((Circle(0.4), Circle(0.2)), 30, "sobol", seed=0).draw()
    assert points.shape == (30, 4)
    radii = (points[:, :2] - 0.5).norm(dim=1)
    assert (radii - 0.4).abs().lt(1e-12).sum() == 20  # by length
    assert (radii - 0.2).abs().lt(1e-12).sum() == 10
    assert torch.allclose((points[:, :2] - 0.5) / radii[:, None], points[:, 2:])
    sums = torch.sin(5 * torch.atan2(points[:20, 3], points[:20, 2])).sum()
    assert sums.abs() < 4  # evenly spread, not at random: five standard errors would be 16


def test_fewer_points_than_regions_take_turns() -> None:
    sampler = Sampler((Circle(0.4), Circle(0.2), Circle(0.1)), 2, "uniform", seed=0)
    points = torch.cat([sampler.draw() for _ in range(300)])
    radii = (points[:, :2] - 0.5).norm(dim=1)
    for radius in (0.4, 0.2, 0.1):
        share = (radii - radius).abs().lt(1e-12).double().mean()
        assert share == pytest.approx(radius / 0.7, abs=0.01)
    angle = torch.atan2(points[:, 3], points[:, 2])
    assert angle.cos().mean().abs() < 5 / math.sqrt(2 * len(angle))  # five standard errors


def test_points_of_a_batch_are_those_given() -> None:
    objective = carried()
    points, batch = draw_batch(objective, list(COUNTS.values()))
    for name, x in objective.points(batch).items():
        assert torch.equal(x, points[name])
    few = objective.subset(batch, [torch.tensor([2, 1])] * 4)
    for name, x in objective.points(few).items():
        assert torch.equal(x, points[name][[2, 1]])


def test_a_resumed_run_has_the_points_of_one_that_was_not_interrupted() -> None:
    objective = carried()
    whole, resumed = source(objective), source(objective)
    for step in range(5):
        whole.at(step)
    state = read_state(resumed.state_schema(4), whole.state_dict(), "points")
    assert {name: x.shape[1] for name, x in state["points"].items()} == {
        "residual": 2,
        "flux": 4,
        "slope": 2,
        "jump": 4,
    }
    resumed.load_state_dict(state)
    for step in range(4, 80):
        for ours, expected in zip(resumed.at(step), whole.at(step), strict=True):
            assert torch.equal(ours.x, expected.x)
    state["points"]["flux"] = state["points"]["flux"][:, :2]
    with pytest.raises(StateError, match=r"points\.points\.flux"):
        read_state(resumed.state_schema(4), state, "points")


def test_adaptive_points_carry_their_columns() -> None:
    points = PointSource(carried(), COUNTS, "adaptive", 1, seed=3)
    points.at(0)
    points.at(1)
    assert torch.allclose((points.points["jump"][:, :2] - 0.5) / 0.4, points.points["jump"][:, 2:])


def test_chosen_points_are_spread_over_the_coordinates() -> None:
    """Whatever the further columns are."""
    objective = carried()
    points, batch = draw_batch(objective, list(COUNTS.values()))
    sketch = Sketched(distribution="systematic", sketch_size=4).sketch
    other = {**points, "flux": torch.cat([points["flux"][:, :2], -7 * points["flux"][:, 2:].flip(0)], dim=1)}
    for ours, expected in zip(
        sketch.orders(objective, objective.batch(other)), sketch.orders(objective, batch), strict=True
    ):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_compiled_steps(chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces run as they are; the same losses, traces and parameters as without."""
    monkeypatch.setattr("ntkrun.steps.graph.compile_trace", lambda trace, inputs, like: trace)
    results = []
    for compiled in (False, True):
        objective = carried()
        if chunked:
            objective = ChunkedObjective(objective.pde, objective.network, "structured", 2**20, 6)
        optimizer = Adam()
        optimizer.start(objective.network)
        compiler, always = Compiler(nullcontext, lambda starts: None), CompileChoice(100, 1.0, True)
        stepper = Stepper(objective, optimizer)
        if compiled and isinstance(objective, ChunkedObjective):
            stepper = ChunkedStepper(objective, optimizer, compiler, always)
        elif compiled:
            stepper = CompiledStepper(objective, optimizer, compiler, always)
        weighting = Exact(update_every=1)
        weighting.start(objective, seed=0)
        points = source(objective)
        for step in range(3):
            batch = points.at(step)
            request: Request = weighting.request(step, objective, batch)
            evaluation = stepper.step(request, batch, 1.0, True)
            weighting.take(request, evaluation)
        assert not compiler.failed
        assert evaluation.traces is not None
        results.append(torch.cat([evaluation.losses, evaluation.traces, objective.parameter_vector()]))
    assert relative(results[1], results[0]) < 1e-9


class Odd(PDE):
    domain = TWO

    def __init__(self, *region: object) -> None:
        self.region = region

    def terms(self) -> tuple[Term, ...]:
        return (Term("odd", self.region, ("u",), lambda x, d: d.u),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("region", "words"),
    [
        ((Circle(0.4), TWO), r"parts with the columns \['nx', 'nt'\] and \[\]; they must be alike"),
        ((Circle(0.4, columns=("x", "nt")),), r"columns \['x', 'nt'\], expected names of no coordinate"),
        ((Circle(0.4, columns=("nx", "progress")),), r"'progress'\], expected names of no coordinate"),
        ((Circle(0.4, columns=("nx", "n t")),), r"'n t'\], expected names"),
        ((Circle(0.4, coordinates=("y", "t")),), r"has the coordinates \['y', 't'\], expected \['x', 't'\]"),
        ((7,), "of type int, expected a Box"),
        ((Box.of(x=(0, 1)),), r"has the coordinates \['x'\], expected \['x', 't'\]"),
    ],
)
def test_regions_that_do_not_fit_are_refused(region: tuple[object, ...], words: str) -> None:
    with pytest.raises(ProblemError, match=rf"loss term 'odd': the region.*{words}"):
        check_problem(Odd(*region))
