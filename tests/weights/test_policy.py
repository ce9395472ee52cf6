"""Weights against numbers worked out by hand, and the timing of updates."""

from __future__ import annotations

import pytest
import torch

from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import Poisson, Wave
from ntkrun.weights import Exact, NTKWeighting, Sketched, Unweighted
from tests.oracle import dense_jacobians, draw_batch, relative

TRACES = torch.tensor([60.0, 4.0, 1.0], dtype=torch.float64)
ROWS = torch.tensor([30.0, 1.0, 4.0], dtype=torch.float64)


def started(weighting: NTKWeighting, terms: int = 3) -> NTKWeighting:
    weighting.weights = torch.ones(terms, dtype=torch.float64)
    weighting.updates = 0
    return weighting


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [6.25 / 2, 6.25 / 4, 6.25 / 0.25]),
        ({"total": "average"}, [6.25 / 6, 6.25 / 12, 6.25 / 0.75]),
        ({"normalization": "trace"}, [65 / 60, 65 / 4, 65]),
        ({"normalization": "trace", "total": "average"}, [65 / 180, 65 / 12, 65 / 3]),
        ({"floor": 0.25}, [7 / 2, 7 / 4, 7 / 1]),
    ],
    ids=["mean-sum", "mean-average", "trace-sum", "trace-average", "floor"],
)
def test_weights_by_hand(options: dict[str, object], expected: list[float]) -> None:
    weights, floored = started(Exact(**options)).weigh(TRACES, ROWS)  # type: ignore[arg-type]
    assert weights.tolist() == pytest.approx(expected, rel=1e-14)
    assert floored.tolist() == [False, False, "floor" in options]


def test_negative_and_zero_traces_hit_the_floor() -> None:
    weights, floored = started(Exact(floor=1e-3, normalization="trace")).weigh(torch.tensor([2.0, -1.0, 0.0]), ROWS)
    assert floored.tolist() == [False, True, True]
    assert weights.tolist() == pytest.approx([2.004 / 2, 2.004 / 2e-3, 2.004 / 2e-3])


def test_smoothing_spares_the_first_update() -> None:
    weighting = started(Exact(smoothing=0.75, normalization="trace"), terms=2)
    weighting.absorb(torch.tensor([1.0, 3.0]), ROWS[:2])
    assert weighting.weights.tolist() == pytest.approx([4, 4 / 3])
    weighting.absorb(torch.tensor([2.0, 2.0]), ROWS[:2])
    assert weighting.weights.tolist() == pytest.approx([0.75 * 4 + 0.25 * 2, 0.75 * 4 / 3 + 0.25 * 2])


@pytest.mark.parametrize(
    ("every", "freeze_after", "expected"),
    [(1, None, range(10)), (4, None, [0, 4, 8]), (4, 5, [0, 4]), (4, 0, [0]), (20, None, [0])],
    ids=["every-step", "every-4", "freeze-after-5", "frozen-from-the-start", "once"],
)
def test_when_updates_are_due(every: int, freeze_after: int | None, expected: list[int]) -> None:
    weighting = Exact(update_every=every, freeze_after=freeze_after)
    assert [step for step in range(10) if weighting.due(step)] == list(expected)


def test_mean_weights_do_not_change_when_points_repeat() -> None:
    pde = Poisson()
    objective = Objective(pde, MLP(6, 1, domain=pde.domain).double())
    points, once = draw_batch(objective, [5, 2])
    twice = objective.batch({**points, "boundary": points["boundary"].repeat(2, 1)})
    weights = []
    for batch in (once, twice):
        weighting = Exact()
        weighting.start(objective, seed=0)
        weighting.evaluate(0, objective, batch)
        weights.append(weighting.weights)
    assert relative(weights[0], weights[1]) < 1e-13


def test_exact_weights_come_from_the_trace_of_the_residual_kernel() -> None:
    """Neither the squared gradient of the loss, nor the sum over the kernel, nor the output's Jacobian."""
    pde = Wave()
    objective = Objective(pde, MLP(12, 2, domain=pde.domain).double())
    points, batch = draw_batch(objective, [20, 20, 20, 20])
    weighting = Exact()
    weighting.start(objective, seed=0)
    evaluation, update = weighting.evaluate(0, objective, batch)
    t = torch.stack([dense.square().sum() / len(dense) for dense in dense_jacobians(objective, points)])
    assert update is not None
    assert relative(update.weights, t.sum() / t) < 1e-11
    assert torch.equal(evaluation.weights, update.weights)


def test_sketched_weights_approach_exact_ones() -> None:
    pde = Wave()
    objective = Objective(pde, MLP(12, 2, domain=pde.domain).double())
    _, batch = draw_batch(objective, [40, 40, 40, 40])
    exact, sketched = Exact(), Sketched(sketch_size=40)
    for weighting in (exact, sketched):
        weighting.start(objective, seed=0)
        weighting.evaluate(0, objective, batch)
    assert relative(sketched.weights, exact.weights) < 1e-12


@pytest.mark.parametrize("make", [Unweighted, lambda: Exact(smoothing=0.5), lambda: Sketched(sketch_size=2)])
def test_state_goes_on(make: type[Unweighted]) -> None:
    pde = Poisson()
    objective = Objective(pde, MLP(6, 1, domain=pde.domain).double())
    _, batch = draw_batch(objective, [8, 2])
    one, other = make(), make()
    one.start(objective, seed=3)
    other.start(objective, seed=4)
    one.evaluate(0, objective, batch)
    other.load_state_dict(one.state_dict())
    for step in (100, 200):
        first, _ = one.evaluate(step, objective, batch)
        second, _ = other.evaluate(step, objective, batch)
        assert torch.equal(first.weights, second.weights)
