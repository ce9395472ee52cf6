"""Steps made from residual rows under every weighting, as a whole, in chunks and shared out among processes."""

from __future__ import annotations

import pytest
import torch

from ntkrun.objective import Evaluation, Objective
from ntkrun.optimizer import GaussNewton
from ntkrun.optimizer.solvers import Solver
from ntkrun.pde import Wave
from ntkrun.point_weights import PointWeights, Uniform
from ntkrun.runtime.distributed import present
from ntkrun.steps.eager import Stepper
from ntkrun.weights import Exact, Weighting
from tests.objective.test_chunked import POINT_WEIGHTS, WEIGHTINGS, both
from tests.oracle import draw_batch, relative


def train(
    objective: Objective,
    weighting: Weighting,
    point_weights: PointWeights,
    steps: int = 4,
    solver: Solver = "auto",
) -> list[Evaluation]:
    weighting.start(objective, 0)
    point_weights.start(objective, True)
    if solver == "sketched":  # whose acceleration and corrections are accurate to a hundredth
        optimizer = GaussNewton(
            damping=1e-2, solver=solver, sketch_size=20, tolerance=1e-11, acceleration=0, corrections=0
        )
    else:
        optimizer = GaussNewton(damping=1e-2)
    optimizer.start(objective.network)
    stepper = Stepper(objective, optimizer)
    _, batch = draw_batch(objective, [31, 9, 8, 5])
    evaluations = []
    for step in range(steps):
        point_weights.update(objective, batch)
        own = point_weights.apply(objective, batch)
        request = weighting.request(step, objective, own)
        evaluation = stepper.step(request, own, 1.0, False)
        weighting.take(request, evaluation)
        evaluations.append(evaluation)
    return evaluations


CASES: list[tuple[str, str, Solver]] = [
    *(
        (name, "uniform", "auto")
        for name in ("none", "exact", "exact-own-points", "gradient-norm", "relobralo", "sketched")
    ),
    ("sketched-parameter", "uniform", "auto"),
    ("exact-every-step", "causal", "auto"),
    ("exact-every-step", "causal", "sketched"),
    ("gradient-norm", "uniform", "sketched"),
]


@pytest.mark.parametrize(("weights", "point_weights", "solver"), CASES, ids=["-".join(case) for case in CASES])
def test_weightings_as_without_chunks(weights: str, point_weights: str, solver: Solver) -> None:
    """The second objective has chunks of a few points, and shares these out where torchrun has started the test."""
    histories = []
    for k in range(2):
        torch.manual_seed(0)
        objective = both(Wave())[k]
        histories.append(train(objective, WEIGHTINGS[weights](), POINT_WEIGHTS[point_weights](), solver=solver))
    tolerance = 1e-5 if "difference" in weights else 1e-7
    for whole, ours in zip(*histories, strict=True):
        assert relative(ours.losses, whole.losses) < tolerance
        assert relative(ours.weights, whole.weights) < tolerance
    first, *_, last = histories[0]
    assert last.weights @ last.losses < last.weights @ first.losses


@pytest.mark.parametrize("solver", ["cholesky", "qr"])
@pytest.mark.parametrize("counts", [(31, 9, 8, 5), (131, 9, 8, 5)], ids=["N<P", "N>P"])
def test_steps_on_either_side_as_without_chunks(counts: tuple[int, ...], solver: Solver) -> None:
    """The parameters and what is decided about damping, which all processes find to the same bits."""
    found = []
    for k in range(2):
        torch.manual_seed(0)
        objective = both(Wave())[k]
        optimizer = GaussNewton(damping=1e-2, solver=solver)
        optimizer.start(objective.network)
        _, batch = draw_batch(objective, list(counts))
        weighting = Exact(update_every=1)
        weighting.start(objective, 0)
        stepper, reports = Stepper(objective, optimizer), []
        for step in range(3):
            request = weighting.request(step, objective, batch)
            weighting.take(request, stepper.step(request, batch, 1.0, False))
            reports.append(dict(optimizer.report()))
        parameters = objective.layout.flatten({n: p.detach() for n, p in objective.trainable.items()})
        found.append((parameters, reports))
    (whole, expected), (ours, reports) = found
    assert (sum(counts) < len(whole)) == (counts[0] == 31)
    assert relative(ours, whole) < 1e-8
    for one, other in zip(reports, expected, strict=True):
        assert (one["damping"], one["trials"]) == (other["damping"], other["trials"])
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-8)
    leading, decided = present().broadcast((ours, reports))
    assert torch.equal(ours, leading)
    assert reports == decided


@pytest.mark.parametrize("weights", [name for name in WEIGHTINGS if "gradient" not in name])
def test_weights_are_those_of_a_gradient_step(weights: str) -> None:
    """Signals made from the rows at hand against those of the pass that gives the gradient; the gradient as well."""
    torch.manual_seed(0)
    objective = both(Wave())[0]
    _, batch = draw_batch(objective, [31, 9, 8, 5])
    ours, theirs = WEIGHTINGS[weights](), WEIGHTINGS[weights]()
    for weighting in (ours, theirs):
        weighting.start(objective, 0)
    expected, _ = theirs.evaluate(0, objective, batch)
    optimizer = GaussNewton()
    optimizer.start(objective.network)
    request = ours.request(0, objective, batch)
    evaluation = Stepper(objective, optimizer).step(request, batch, 1.0, False)
    ours.take(request, evaluation)
    assert relative(evaluation.weights, expected.weights) < 1e-10
    assert relative(evaluation.losses, expected.losses) < 1e-12
    flatten = objective.layout.flatten
    assert relative(flatten(evaluation.gradient), flatten(expected.gradient)) < 1e-9
    if expected.traces is not None:
        assert evaluation.traces is not None
        assert relative(evaluation.traces, expected.traces) < 1e-10


def test_single_precision() -> None:
    """The same steps from float32 rows, as far as their round-off goes."""
    histories = []
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(0)
        objective = both(Wave())[0]
        network = objective.network.to(dtype)
        histories.append(train(Objective(objective.pde, network), Exact(update_every=2), Uniform(), 3))
    for exact, ours in zip(*histories, strict=True):
        assert ours.losses.dtype == torch.float32
        assert relative(ours.losses.double(), exact.losses) < 1e-3
