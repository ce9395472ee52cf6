"""Kernels, the fused pass, chunks, sketches and Gauss-Newton on a device, in float64 against the host."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ntkrun.network import MLP
from ntkrun.ntk.sketch import Distribution, Estimator, Sketch
from ntkrun.objective import Objective, Route
from ntkrun.objective.chunked import ChunkedObjective
from ntkrun.optimizer import GaussNewton
from ntkrun.optimizer.solvers import Solver
from ntkrun.pde import PDE, Advection, Poisson, Wave
from ntkrun.steps.eager import Stepper
from ntkrun.weights import Exact, Sketched
from tests import problems
from tests.oracle import dense_jacobians, draw_points, relative

COUNTS = [9, 5, 4, 3]
PROBLEMS: dict[str, Callable[[], PDE]] = {
    "poisson": Poisson,
    "wave": Wave,
    "advection": Advection,
    "system": problems.System,
    "integrated": problems.Integrated,
}
CASES: list[tuple[str, str, Route]] = [
    *((network, "wave", "structured") for network in problems.NETWORKS),
    *(("mlp", problem, "structured") for problem in PROBLEMS if problem != "wave"),
    ("mlp", "wave", "per_point"),
    ("mlp", "system", "dense"),
]


def made(pde: PDE, network: str, device: str) -> torch.nn.Module:
    torch.manual_seed(0)
    built = problems.NETWORKS[network](pde.domain, len(pde.fields))
    return built.double().to(device)


def here(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu()


@pytest.mark.parametrize(("network", "problem", "route"), CASES, ids=["-".join(case) for case in CASES])
def test_kernels_and_the_fused_pass(network: str, problem: str, route: Route, device: str) -> None:
    """Against dense Jacobians of the host, one row at a time."""
    host = Objective(PROBLEMS[problem](), made(PROBLEMS[problem](), network, "cpu"), route, memory=2**12)
    ours = Objective(PROBLEMS[problem](), made(PROBLEMS[problem](), network, device), route, memory=2**12)
    points = draw_points(host, COUNTS[: len(host.terms)])
    dense = dense_jacobians(host, points)
    batch = ours.batch({name: x.to(device) for name, x in points.items()})
    assert ours.like.device.type == device
    for jacobian, expected in zip(ours.jacobians(batch), dense, strict=True):
        w = torch.randn(2, len(expected), dtype=torch.float64)
        assert relative(here(jacobian.dense()), expected) < 1e-10
        assert relative(here(jacobian.gram()), expected @ expected.T) < 1e-10
        assert relative(here(jacobian.kernel_matvec(w.to(device))), w @ expected @ expected.T) < 1e-10
    traces = torch.stack([each.square().sum() for each in dense])
    weights = traces.sum() / traces
    residuals = [r.detach() for r in host.residuals(host.batch(points))]
    parts = [2 * w / len(j) * (r @ j) for w, j, r in zip(weights, dense, residuals, strict=True)]
    evaluation = ours.fused(batch, lambda traces: traces.sum() / traces)
    assert evaluation.traces is not None
    assert relative(here(evaluation.traces), traces) < 1e-12
    assert relative(here(evaluation.weights), weights) < 1e-12
    assert relative(here(ours.layout.flatten(evaluation.gradient)), torch.stack(parts).sum(0)) < 1e-10


@pytest.mark.parametrize("problem", ["poisson", "wave", "advection", "system"])
def test_chunks(problem: str, device: str) -> None:
    """A few points at a time, the same losses, gradients and traces as all at once on the host."""
    pde = PROBLEMS[problem]()
    whole = Objective(pde, made(pde, "mlp", "cpu"), "structured")
    ours = ChunkedObjective(pde, made(pde, "mlp", device), "structured", 2**20, 4)
    points = draw_points(whole, COUNTS[: len(whole.terms)])
    batch = ours.batch({name: x.to(device) for name, x in points.items()})
    expected = whole.fused(whole.batch(points), lambda traces: traces.sum() / traces)
    found = ours.fused(batch, lambda traces: traces.sum() / traces)
    assert found.traces is not None
    assert expected.traces is not None
    assert relative(here(found.losses), expected.losses) < 1e-12
    assert relative(here(found.traces), expected.traces) < 1e-12
    flat = [here(each.layout.flatten(e.gradient)) for each, e in ((ours, found), (whole, expected))]
    assert relative(*flat) < 1e-11


SKETCHES: list[tuple[Distribution, Estimator]] = [
    ("systematic", "plain"), ("coordinate", "plain"), ("gaussian", "plain"), ("rademacher", "hutchpp"),
    ("gaussian", "xtrace"),
]  # fmt: skip


@pytest.mark.parametrize(("distribution", "estimator"), SKETCHES, ids=["-".join(each) for each in SKETCHES])
def test_sketches(distribution: Distribution, estimator: Estimator, device: str) -> None:
    """The same choices and probes as on the host give the same estimates."""
    pde, estimates = Wave(), []
    sketch = Sketch(6, "residual", "autodiff", distribution, estimator=estimator)
    for place in ("cpu", device):
        objective = Objective(pde, made(pde, "mlp", place))
        points = {name: x.cpu().to(place) for name, x in draw_points(objective, [40, 20, 10, 10]).items()}
        estimate = sketch.estimate(objective, objective.batch(points), torch.Generator().manual_seed(3))
        estimates.append((here(estimate.traces), here(estimate.standard_errors)))
    for ours, expected in zip(estimates[1], estimates[0], strict=True):
        assert relative(ours, expected) < 1e-10


SOLVERS: list[Solver] = ["cholesky", "qr", "sketched", "sketch_and_solve", "auto"]


@pytest.mark.parametrize("points", [60, 300], ids=["fewer-rows", "more-rows"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_gauss_newton(solver: Solver, points: int, device: str) -> None:
    """In float64 on the device; its steps are those of the host as far as rounding, which grows, allows."""
    histories = []
    for place in ("cpu", device):
        torch.manual_seed(0)
        pde = Poisson()
        network = MLP(8, 2, domain=pde.domain).double().to(place)
        objective = Objective(pde, network)
        batch = objective.batch({n: x.cpu().to(place) for n, x in draw_points(objective, [points, 2]).items()})
        weighting, optimizer = Exact(update_every=1), GaussNewton(damping=1e-2, solver=solver, sketch_size=40)
        weighting.start(objective, 0)
        optimizer.start(network)
        stepper, losses = Stepper(objective, optimizer), []
        for step in range(6):
            weighting.rows_at_hand = True
            request = weighting.request(step, objective, batch)
            evaluation = stepper.step(request, batch, 1.0, False)
            weighting.take(request, evaluation)
            losses.append(here(evaluation.loss))
            assert evaluation.losses.device.type == device or place == "cpu"
        histories.append(torch.stack(losses))
    assert histories[1][-1] < 0.5 * histories[1][0]
    assert relative(histories[1], histories[0]) < 1e-5


def test_weights_of_a_sketch_in_the_pass(device: str) -> None:
    """Diagonals at chosen points out of the backward pass of the gradient itself."""
    found = []
    for place in ("cpu", device):
        pde = Wave()
        objective = Objective(pde, made(pde, "mlp", place))
        batch = objective.batch({n: x.cpu().to(place) for n, x in draw_points(objective, [40, 20, 10, 10]).items()})
        weighting = Sketched(sketch_size=4, update_every=1)
        weighting.start(objective, 5)
        evaluation, update = weighting.evaluate(0, objective, batch)
        assert update is not None
        found.append((here(evaluation.weights), here(objective.layout.flatten(evaluation.gradient))))
    for ours, expected in zip(found[1], found[0], strict=True):
        assert relative(ours, expected) < 1e-10
