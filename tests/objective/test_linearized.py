"""Weighted rows, and Gauss-Newton steps from them, against Jacobians built row by row and NumPy's least squares."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from ntkrun.geometry import Box
from ntkrun.objective import ChunkedObjective, Objective, Route
from ntkrun.objective.factored_rows import FactoredRows
from ntkrun.objective.jacobian_rows import JacobianRows
from ntkrun.objective.linearized import LinearizedRows
from ntkrun.optimizer.least_squares import DampedLeastSquares, LeastSquares
from ntkrun.optimizer.sketched import SketchedLeastSquares, Sketching
from tests.optimizer.test_least_squares import distance, solution
from tests.oracle import dense_jacobians, draw_points, relative, residual_rows
from tests.problems import Gain, Plain, System, frozen_mlp, mlp

CASES: dict[str, tuple[Callable[[Box, int], nn.Module], Route]] = {
    "structured": (mlp, "structured"),
    "frozen": (frozen_mlp, "structured"),
    "per-point": (Gain, "per_point"),
    "any-module": (Plain, "per_point"),
    "dense": (mlp, "dense"),
}
COUNTS = {"N<P": [4, 3, 2], "N>P": [25, 12, 9]}
WEIGHTS = torch.tensor([0.5, 20.0, 3.0], dtype=torch.float64)


def make(case: str, memory: int = 2**28, chunk: int | None = None) -> Objective:
    torch.manual_seed(0)
    network, route = CASES[case]
    pde = System()
    module = network(pde.domain, 2).double()
    if chunk is not None:
        return ChunkedObjective(pde, module, route, memory, chunk)
    return Objective(pde, module, route, memory)


@cache
def expected(case: str, counts: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """D r and D J with D = diag(sqrt(lambda_i / N_i))."""
    objective = make(case)
    points = draw_points(objective, list(counts))
    residuals = [r.detach() for r in residual_rows(objective, points)]
    scales = [(w / len(r)).sqrt() for w, r in zip(WEIGHTS, residuals, strict=True)]
    jacobians = dense_jacobians(objective, points)
    return (
        torch.cat([s * r for s, r in zip(scales, residuals, strict=True)]),
        torch.cat([s * j for s, j in zip(scales, jacobians, strict=True)]),
    )


@pytest.mark.parametrize("way", ["whole", "blocks", "chunked", "chunked blocks"])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=list(COUNTS))
@pytest.mark.parametrize("case", CASES)
def test_steps(case: str, counts: list[int], way: str) -> None:
    memory = 2**13 if "blocks" in way else 2**28
    if case == "dense" and "blocks" in way:
        pytest.skip("the dense route holds what it makes")
    objective = make(case, memory, 7 if "chunked" in way else None)
    points = draw_points(objective, counts)
    system = LinearizedRows(objective, objective.batch(points))
    system.weigh(WEIGHTS)
    assert isinstance(system.rows, JacobianRows)
    assert system.rows.held == (8 * system.rows.count * system.rows.columns <= memory)
    residual, jacobian = expected(case, tuple(counts))
    assert relative(system.residual, residual) < 1e-12
    assert relative(system.rows.matrix(), jacobian) < 1e-10
    squares = DampedLeastSquares(system.rows, system.residual)
    assert squares.gram.kernel_side == (counts == COUNTS["N<P"])
    for damping in (1e-2, 1e-7):
        found = squares.at(damping * squares.scale)
        assert found is not None
        assert distance(found.step, solution(jacobian, residual, damping * squares.scale)) < 1e-8


@pytest.mark.parametrize("factored", [False, True], ids=["formed", "factored"])
@pytest.mark.parametrize("way", ["whole", "blocks", "chunked", "chunked blocks"])
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.long] * (case == "any-module")) for case in CASES]
)
def test_products_after_the_network_has_moved_on(case: str, way: str, factored: bool) -> None:
    """Trials of a step move the network, and its Jacobian remains that of where the step began."""
    memory = 2**13 if "blocks" in way else 2**28
    objective = make(case, memory, 7 if "chunked" in way else None)
    system = LinearizedRows(objective, objective.batch(draw_points(objective, COUNTS["N>P"])), factored)
    system.weigh(WEIGHTS)
    system.at(system.parameters + 0.3)
    _, jacobian = expected(case, tuple(COUNTS["N>P"]))
    generator = torch.Generator().manual_seed(3)
    count, columns = jacobian.shape
    v, w = (torch.randn(n, dtype=torch.float64, generator=generator) for n in (columns, count))
    buckets = torch.randint(5, (count,), generator=generator)
    for _ in range(2):  # kept and made anew
        assert relative(system.rows.matvec(v), jacobian @ v) < 1e-10
        assert relative(system.rows.rmatvec(w), jacobian.T @ w) < 1e-10
        assert relative(system.rows.squares(), jacobian.square().sum(1)) < 1e-10
        sums = torch.zeros(5, columns, dtype=torch.float64).index_add(0, buckets, w[:, None] * jacobian)
        assert relative(system.rows.sums(buckets, w, 5), sums) < 1e-10
        columns_of = torch.randint(4, (columns,), generator=generator)
        sums = torch.zeros(count, 4, dtype=torch.float64).index_add(1, columns_of, jacobian * v)
        assert relative(system.rows.column_sums(columns_of, v, 4), sums) < 1e-10
        several = torch.stack([v, v.flip(0)], dim=1)
        assert relative(system.rows.matmat(several), jacobian @ several) < 1e-10
        several = torch.stack([w, w.flip(0)], dim=1)
        assert relative(system.rows.rmatmat(several), jacobian.T @ several) < 1e-10
    assert relative(objective.parameter_vector(), system.parameters + 0.3) < 1e-15


@pytest.mark.parametrize("memory", [0, 3000, 2**28], ids=["none", "some", "all"])
def test_factors_are_kept_as_far_as_memory_goes(memory: int) -> None:
    objective = make("structured", chunk=7)
    system = LinearizedRows(objective, objective.batch(draw_points(objective, COUNTS["N>P"])), factored=True)
    rows = system.rows
    assert isinstance(rows, FactoredRows)
    rows._room = memory
    rows.squares()
    kept = list(rows._kept.values())
    assert sum(part.nbytes for part in kept) == memory - rows._room <= memory
    assert (len(kept) == len(rows._pieces)) == (memory == 2**28)
    assert (len(kept) == 0) == (memory == 0)


@pytest.mark.parametrize("counts", COUNTS.values(), ids=list(COUNTS))
@pytest.mark.parametrize("case", CASES)
def test_sketched_steps(case: str, counts: list[int]) -> None:
    objective = make(case, chunk=7)
    system = LinearizedRows(objective, objective.batch(draw_points(objective, counts)), factored=True)
    system.weigh(WEIGHTS)
    residual, jacobian = expected(case, tuple(counts))
    squares = SketchedLeastSquares(system.rows, system.residual, Sketching(20, 1e-10))
    for damping in (1e-2, 1e-7):
        found = squares.at(damping * squares.scale)
        assert found is not None
        assert distance(found.step, solution(jacobian, residual, damping * squares.scale)) < 1e-8


@pytest.mark.parametrize("factored", [False, True], ids=["formed", "factored"])
@pytest.mark.parametrize("chunk", [None, 7])
def test_point_weights(chunk: int | None, factored: bool) -> None:
    objective = make("structured", chunk=chunk)
    points = draw_points(objective, COUNTS["N>P"])
    generator = torch.Generator().manual_seed(2)
    own = {name: torch.rand(len(x), 1, dtype=torch.float64, generator=generator) for name, x in points.items()}
    system = LinearizedRows(objective, objective.weigh_points(objective.batch(points), own), factored)
    system.weigh(WEIGHTS)
    residual, jacobian = expected("structured", tuple(COUNTS["N>P"]))
    repeats = [own[name].sqrt().repeat(m, 1) for name, m in zip(objective.names, objective.components, strict=True)]
    roots = torch.cat(repeats)[:, 0]
    assert relative(system.residual, roots * residual) < 1e-12
    identity = torch.eye(len(jacobian), dtype=torch.float64)
    assert relative(torch.stack([system.rows.rmatvec(row) for row in identity]), roots[:, None] * jacobian) < 1e-10


@pytest.mark.parametrize("factored", [False, True], ids=["formed", "factored"])
def test_losses_and_diagonals_before_weighing(factored: bool) -> None:
    objective = make("structured")
    batch = objective.batch(draw_points(objective, COUNTS["N>P"]))
    system = LinearizedRows(objective, batch, factored)
    assert relative(system.losses(), objective.losses(batch)) < 1e-12
    for ours, exact in zip(system.diagonals(), objective.diagonals(batch), strict=True):
        assert relative(ours, exact) < 1e-10


def test_other_parameters_stay_with_the_network() -> None:
    objective = make("structured")
    batch = objective.batch(draw_points(objective, COUNTS["N>P"]))
    system = LinearizedRows(objective, batch)
    system.weigh(WEIGHTS)
    moved = system.parameters + 0.1
    there = system.at(moved)
    assert torch.equal(objective.parameter_vector(), moved)
    again = LinearizedRows(objective, batch)
    again.weigh(WEIGHTS)
    assert torch.equal(there, again.residual)


@pytest.mark.parametrize("factored", [False, True], ids=["formed", "factored"])
@pytest.mark.parametrize("case", ["structured", "per-point"])
def test_single_precision_is_solved_in_double(case: str, factored: bool) -> None:
    """The step from float32 rows is the float64 least-squares solution of these very rows."""
    objective = make(case)
    objective = Objective(objective.pde, objective.network.float())
    batch = objective.batch(draw_points(objective, COUNTS["N>P"]))
    system = LinearizedRows(objective, batch, factored)
    system.weigh(WEIGHTS.float())
    assert system.residual.dtype == system.rows.squares().dtype == torch.float64
    squares: LeastSquares
    if factored:
        squares = SketchedLeastSquares(system.rows, system.residual, Sketching(60, 1e-10))
    else:
        assert isinstance(system.rows, JacobianRows)
        squares = DampedLeastSquares(system.rows, system.residual)
    found = squares.at(1e-9 * squares.scale)
    assert found is not None
    jacobian = system.rows.matmat(torch.eye(system.rows.columns, dtype=torch.float64))
    assert relative(jacobian, objective.jacobian(batch).dense().double() * system._scale[:, None]) < 1e-6  # type: ignore[index]
    assert distance(found.step, solution(jacobian, system.residual, found.mu)) < 1e-8
