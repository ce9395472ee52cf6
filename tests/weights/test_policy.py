"""Weights against numbers worked out by hand, and the timing of updates."""

from __future__ import annotations

import math

import pytest
import torch

from ntkrun.geometry import mix_seed
from ntkrun.network import MLP
from ntkrun.ntk.sketch import Distribution
from ntkrun.ntk.systematic import hilbert_order
from ntkrun.objective import Objective
from ntkrun.objective.chunked import ChunkedObjective
from ntkrun.pde import PDE, Cavity, Poisson, Wave
from ntkrun.weights import Exact, NTKWeighting, Sketched, Unweighted
from ntkrun.weights.interval import Interval
from tests.oracle import dense_jacobians, draw_batch, relative
from tests.problems import CoupledJets

TRACES = torch.tensor([60.0, 4.0, 1.0], dtype=torch.float64)
ROWS = torch.tensor([30.0, 1.0, 4.0], dtype=torch.float64)


def started(weighting: NTKWeighting, terms: int = 3) -> NTKWeighting:
    weighting.weights = torch.ones(terms, dtype=torch.float64)
    weighting.updates = 0
    weighting.known = torch.zeros(terms, dtype=torch.bool)
    weighting.constants = {}
    weighting.interval = Interval()
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
    weights, floored = started(Exact(**options)).target(TRACES, ROWS)  # type: ignore[arg-type]
    assert weights.tolist() == pytest.approx(expected, rel=1e-14)
    assert floored.tolist() == [False, False, "floor" in options]


def test_small_traces_hit_the_floor_and_others_take_no_part() -> None:
    traces = torch.tensor([2.0, 1e-9, -1.0])
    weights, floored = started(Exact(floor=1e-3, normalization="trace")).target(traces, ROWS)
    assert floored.tolist() == [False, True, False]
    assert weights[:2].tolist() == pytest.approx([2.002 / 2, 2.002 / 2e-3])


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
    exact, sketched, whole = Exact(), Sketched(sketch_size=40), Sketched(sketch_size=5, average="kalman")
    for weighting in (exact, sketched, whole):
        weighting.start(objective, seed=0)
        _, update = weighting.evaluate(0, objective, batch)
    assert relative(sketched.weights, exact.weights) < 1e-12
    assert relative(whole.weights, exact.weights) < 1e-12
    assert whole.request(100, objective, batch).signal == "traces"  # as no points are picked out, nothing else is read
    assert update is not None
    assert relative(update.columns["trace"], objective.traces(batch)) < 1e-12
    assert not update.columns["standard_error"].any()


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "point-weights"])
@pytest.mark.parametrize("size", [5, None], ids=["chunks", "whole"])
@pytest.mark.parametrize("pde", [Wave(), Cavity()], ids=["wave", "cavity"])
def test_samples_of_a_sketch_are_rows_of_the_dense_jacobian(pde: PDE, size: int | None, weighted: bool) -> None:
    """All but the first of the two inner maps is known at all points; terms of no more than 40 are taken whole."""
    network = MLP(12, 3, outputs=len(pde.fields), domain=pde.domain).double()
    whole = Objective(pde, network)
    objective = whole if size is None else ChunkedObjective(pde, network, "structured", whole.memory, size)
    points, batch = draw_batch(objective, [49, 12, 4, 7][: len(objective.terms)])
    factors = {name: 0.1 + torch.rand(len(x), 1, dtype=torch.float64) for name, x in points.items()}
    batch = objective.weigh_points(batch, factors) if weighted else batch
    weighting = Sketched(sketch_size=5)
    weighting.start(objective, seed=3)
    evaluation, update = weighting.evaluate(0, objective, batch)
    inner = [objective.layout.slices[f"layers.1.{kind}"] for kind in ("weight", "bias")]
    generator = torch.Generator().manual_seed(mix_seed(3, 1))
    traces, errors = [], []
    for name, dense in zip(objective.names, dense_jacobians(objective, points), strict=True):
        n = len(points[name])
        unknown = torch.cat([dense[:, columns] for columns in inner], dim=1)
        squares = torch.stack([dense.square().sum(1), unknown.square().sum(1)])
        diagonal, rest = squares.view(2, -1, n).sum(1) * (factors[name][:, 0] if weighted else 1)
        if n <= 40:
            traces.append(diagonal.sum())
            errors.append(torch.zeros((), dtype=torch.float64))
            continue
        order, known = hilbert_order(points[name]), diagonal - rest
        chances = 0.9 * known / known.sum() + 0.1 / n
        ends, means = chances[order].cumsum(0), []
        for offset, m in zip(torch.rand(2, generator=generator, dtype=torch.float64), (2, 3), strict=True):
            drawn = [order[int((ends <= (offset + k) / m).sum())] for k in range(m)]
            means.append(torch.stack([rest[k] / chances[k] for k in drawn]).mean())
        traces.append(known.sum() + torch.stack(means).mean())
        errors.append(torch.stack(means).std() / math.sqrt(2))
    assert update is not None
    assert relative(update.columns["trace"], torch.stack(traces)) < 1e-11
    assert relative(update.columns["standard_error"], torch.stack(errors)) < 1e-9
    t = torch.stack(traces) / torch.tensor(objective.row_counts(batch))
    assert relative(evaluation.weights, t.sum() / t) < 1e-11
    expected = whole.gradient(batch, evaluation.weights).gradient
    assert all(relative(evaluation.gradient[name], g) < 1e-11 for name, g in expected.items())


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


def trained_steps(objective: Objective, weighting: NTKWeighting, steps: int) -> list[torch.Tensor]:
    """The traces of every update while gradient steps move the parameters."""
    _, batch = draw_batch(objective, [30, 2])
    weighting.start(objective, seed=0)
    traces = []
    for step in range(steps):
        evaluation, update = weighting.evaluate(step, objective, batch)
        assert update is not None
        traces.append(update.columns["trace"])
        with torch.no_grad():
            for name, parameter in objective.network.named_parameters():
                parameter -= 1e-7 * evaluation.gradient[name]
    return traces


def poisson_objective() -> Objective:
    torch.manual_seed(0)
    pde = Poisson()
    return Objective(pde, MLP(8, 2, domain=pde.domain).double())


def test_recursive_estimates_follow_exact_traces() -> None:
    """From an exact start, with the same probes at both ends, only the increments are estimated."""
    exact = trained_steps(poisson_objective(), Exact(update_every=1), 8)
    errors = {}
    for corrector in ("fresh", "recursive"):
        weighting = Sketched(
            update_every=1,
            side="residual",
            distribution="gaussian",
            sketch_size=4,
            corrector=corrector,  # type: ignore[arg-type]
            restart="exact",
            restart_every=100,
        )
        estimates = trained_steps(poisson_objective(), weighting, 8)
        errors[corrector] = sum(relative(a, b) for a, b in zip(estimates, exact, strict=True))
    assert errors["recursive"] < 0.1 * errors["fresh"]


def test_recursion_restarts() -> None:
    weighting = Sketched(update_every=1, corrector="recursive", restart="exact", restart_every=3, sketch_size=2)
    exact = trained_steps(poisson_objective(), Exact(update_every=1), 1)
    estimates = trained_steps(poisson_objective(), weighting, 4)
    assert torch.equal(estimates[0], exact[0])
    assert weighting.previous["errors"].tolist() == [0, 0]  # the fourth update restarted


def test_a_recursion_that_turns_negative_starts_afresh() -> None:
    objective = poisson_objective()
    _, batch = draw_batch(objective, [30, 2])
    weighting = Sketched(update_every=1, corrector="recursive", sketch_size=8)
    weighting.start(objective, seed=0)
    weighting.evaluate(0, objective, batch)
    weighting.previous["traces"] = torch.tensor([-1.0, 5.0], dtype=torch.float64)
    _, update = weighting.evaluate(1, objective, batch)
    assert update is not None
    assert update.columns["trace"][0] > 0
    assert update.columns["trace"][1] == 5
    assert update.restarted is not None
    assert update.restarted.tolist() == [True, False]


def test_kernels_at_points_of_their_own() -> None:
    """Traces keep the scale of the training rows; the mean of K_kk does not depend on the number of points."""
    pde = Poisson()
    objective = Objective(pde, MLP(8, 2, domain=pde.domain).double())
    _, batch = draw_batch(objective, [2000, 2])
    updates = []
    for weighting in (Exact(), Exact(points=1024), Sketched(points=1024, sketch_size=1024)):
        weighting.start(objective, seed=0)
        _, update = weighting.evaluate(0, objective, batch)
        assert update is not None
        updates.append(update)
    # 2,000 independent points: about 2 % each
    assert relative(updates[1].columns["trace"], updates[0].columns["trace"]) < 0.1
    assert relative(updates[2].columns["trace"], updates[1].columns["trace"]) < 1e-12


def test_exact_values_beside_the_sketched() -> None:
    objective = poisson_objective()
    _, batch = draw_batch(objective, [30, 2])
    weighting = Sketched(sketch_size=3, compare_exact=True)
    weighting.start(objective, seed=0)
    _, update = weighting.evaluate(0, objective, batch)
    assert update is not None
    t = objective.traces(batch) / torch.tensor([30, 2])
    assert relative(update.columns["exact_trace"], objective.traces(batch)) < 1e-13
    assert relative(update.columns["exact_weight"], t.sum() / t) < 1e-13
    assert set(update.columns) == set(weighting.columns())


@pytest.mark.parametrize("distribution", ["systematic", "coordinate"])
def test_chosen_points_need_rows_of_their_own_points(distribution: Distribution) -> None:
    pde = Poisson()
    objective = Objective(pde, CoupledJets(pde.domain).double())
    with pytest.raises(ValueError, match=f"distribution={distribution} needs residuals that depend on their own"):
        Sketched(distribution=distribution).start(objective, seed=0)


def test_exact_weights_beside_sketched_ones_are_smoothed_alike() -> None:
    """A sketch of all points is exact, so that both columns agree; also after a reload."""
    torch.manual_seed(0)
    pde = Poisson()
    objective = Objective(pde, MLP(6, 1, domain=pde.domain).double())
    _, batch = draw_batch(objective, [6, 2])
    weighting = Sketched(update_every=1, smoothing=0.75, compare_exact=True)
    weighting.start(objective, seed=0)
    home = objective.parameter_vector()
    for step in range(6):
        if step == 3:
            other = Sketched(update_every=1, smoothing=0.75, compare_exact=True)
            other.start(objective, seed=0)
            other.load_state_dict(weighting.state_dict())
            weighting = other
        with objective.at(home * (1 + step)):
            _, update = weighting.evaluate(step, objective, batch)
        assert update is not None
        assert relative(update.columns["exact_weight"], update.weights) < 1e-12
        if step:
            t = update.columns["exact_trace"] / torch.tensor([6.0, 2.0], dtype=torch.float64)
            assert relative(update.weights, t.sum() / t) > 1e-3  # smoothing matters
