"""Weighted rows, and Gauss-Newton steps from them, against Jacobians built row by row and NumPy's least squares."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from ntkrun.geometry import Box
from ntkrun.objective import ChunkedObjective, Objective, Route
from ntkrun.objective.linearized import LinearizedRows
from ntkrun.optimizer.least_squares import DampedLeastSquares
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


@pytest.mark.parametrize("chunk", [None, 7])
def test_point_weights(chunk: int | None) -> None:
    objective = make("structured", chunk=chunk)
    points = draw_points(objective, COUNTS["N>P"])
    generator = torch.Generator().manual_seed(2)
    own = {name: torch.rand(len(x), 1, dtype=torch.float64, generator=generator) for name, x in points.items()}
    system = LinearizedRows(objective, objective.weigh_points(objective.batch(points), own))
    system.weigh(WEIGHTS)
    residual, jacobian = expected("structured", tuple(COUNTS["N>P"]))
    repeats = [own[name].sqrt().repeat(m, 1) for name, m in zip(objective.names, objective.components, strict=True)]
    roots = torch.cat(repeats)[:, 0]
    assert relative(system.residual, roots * residual) < 1e-12
    assert relative(system.rows.matrix(), roots[:, None] * jacobian) < 1e-10


def test_losses_and_diagonals_before_weighing() -> None:
    objective = make("structured")
    batch = objective.batch(draw_points(objective, COUNTS["N>P"]))
    system = LinearizedRows(objective, batch)
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


def test_single_precision_is_solved_in_double() -> None:
    """The step from float32 rows is the float64 least-squares solution of these very rows."""
    torch.manual_seed(0)
    pde = System()
    objective = Objective(pde, mlp(pde.domain, 2).float())
    batch = objective.batch(draw_points(objective, COUNTS["N>P"]))
    system = LinearizedRows(objective, batch)
    system.weigh(WEIGHTS.float())
    assert system.residual.dtype == system.rows.matrix().dtype == torch.float64
    squares = DampedLeastSquares(system.rows, system.residual)
    found = squares.at(1e-9 * squares.scale)
    assert found is not None
    exact = solution(objective.jacobian(batch).dense().double() * system._scale[:, None], system.residual, found.mu)  # type: ignore[index]
    assert distance(found.step, exact) < 1e-8
