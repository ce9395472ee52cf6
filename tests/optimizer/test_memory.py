"""What Gauss-Newton remembers of earlier draws, against least squares over all of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ntkrun.objective.jacobian_rows import JacobianRows
from ntkrun.optimizer import GaussNewton
from ntkrun.optimizer.memory import LOOKS, Memory, RememberingLeastSquares
from tests.optimizer.test_optimizers import through_a_file


class Linear:
    """Residuals A p - y of some parameters."""

    def __init__(self, matrix: Tensor, right: Tensor, at: Tensor) -> None:
        self.matrix, self.right, self.parameters = matrix, right, at
        self.residual = self.at(at)
        self.rows = JacobianRows(*matrix.shape, lambda: iter([(slice(None), matrix.clone())]), 2**30)

    def at(self, parameters: Tensor) -> Tensor:
        self.last = parameters
        return self.matrix @ parameters - self.right


def draws(number: int, rows: int, noise: float) -> list[tuple[Tensor, Tensor]]:
    """Rows about the same three parameters, with noise."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = []
    for _ in range(number):
        matrix = torch.randn(rows, 3, generator=generator, dtype=torch.float64)
        found.append((matrix, matrix @ truth + noise * torch.randn(rows, generator=generator, dtype=torch.float64)))
    return found


def started(**options: float) -> GaussNewton:
    optimizer = GaussNewton(damping=1e-11, **options)  # type: ignore[arg-type]
    optimizer.start(nn.Linear(2, 1))  # three parameters
    return optimizer


def follow(optimizer: GaussNewton, data: list[tuple[Tensor, Tensor]], at: Tensor, first: bool = True) -> list[Tensor]:
    """The parameters after every step, each on a draw of its own."""
    path = []
    for i, (matrix, right) in enumerate(data):
        if i or not first:
            optimizer.points_drawn()
        system = Linear(matrix, right, at)
        optimizer.step_on_rows(system)
        at = system.last
        path.append(at)
    return path


def fading(data: list[tuple[Tensor, Tensor]], factors: list[float]) -> Tensor:
    """The least squares solution over all draws; all before a draw count by its factor."""
    weights = [math.prod(factors[i + 1 :]) for i in range(len(data))]
    matrix = torch.cat([math.sqrt(w) * a for w, (a, _) in zip(weights, data, strict=True)])
    right = torch.cat([math.sqrt(w) * y for w, (_, y) in zip(weights, data, strict=True)])
    return torch.linalg.lstsq(matrix, right[:, None]).solution[:, 0]


def test_steps_are_those_of_recursive_least_squares() -> None:
    """With four rows for three parameters, the loss at new points is left behind at once."""
    data = draws(60, 4, 0.1)
    path = follow(started(memory=0.3), data, torch.zeros(3, dtype=torch.float64))
    # Ratios are known from the second draw on, and judged once there are LOOKS of them.
    for last in (LOOKS + 1, LOOKS + 8, 59):
        own = data[LOOKS : last + 1]
        factors = [1.0] + [min(0.3, k / (k + 20)) for k in range(2, len(own) + 1)]
        assert torch.allclose(path[last], fading(own, factors), rtol=1e-6)
    assert torch.allclose(path[LOOKS - 1], fading(data[LOOKS - 1 : LOOKS], [1.0]), rtol=1e-6)  # its own draw alone


def test_noise_of_draws_is_averaged() -> None:
    truth = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    ends = {}
    for memory in (0.0, 0.98):
        path = follow(started(memory=memory), draws(400, 4, 0.1), torch.zeros(3, dtype=torch.float64))
        ends[memory] = float(torch.stack([(p - truth).norm() for p in path[-50:]]).median())
    assert ends[0.98] < ends[0.0] / 2


@pytest.mark.parametrize(("rows", "noise"), [(60, 0.1), (4, 0.0)], ids=["many rows", "no noise"])
def test_nothing_is_remembered_where_steps_serve_new_points(rows: int, noise: float) -> None:
    """The last loss without noise is round-off, of which nothing is learnt; it is looked at before."""
    data = draws(40, rows, noise)
    start = torch.zeros(3, dtype=torch.float64)
    optimizer, plain = started(memory=0.98), started(memory=0.0)
    if not noise:
        data = [(matrix, right + 1e-3 * matrix[:, 0] ** 0) for matrix, right in data[:1]] * 40  # the same points as new
    ours, theirs = follow(optimizer, data, start), follow(plain, data, start)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert optimizer.state_dict()["memory"]["total"] is None


def test_points_that_stay_make_it_begin_anew() -> None:
    data = draws(30, 4, 0.1)
    optimizer = started(memory=0.98)
    at = follow(optimizer, data, torch.zeros(3, dtype=torch.float64))[-1]
    assert optimizer.state_dict()["memory"]["total"] is not None
    system = Linear(*data[-1], at)
    optimizer.step_on_rows(system)  # the same points
    empty = Memory(0.98, torch.zeros((), dtype=torch.float64), 3).state_dict()
    assert {**optimizer.state_dict()["memory"], "fitted": 0.0} == empty
    assert torch.allclose(system.last, fading(data[-1:], [1.0]), rtol=1e-6)


def test_goes_through_a_file() -> None:
    data = draws(40, 4, 0.1)
    start = torch.zeros(3, dtype=torch.float64)
    whole = follow(started(memory=0.9), data, start)
    first, second = started(memory=0.9), started(memory=0.9)
    at = follow(first, data[:25], start)[-1]
    second.load_state_dict(through_a_file(first.state_dict()))
    assert torch.equal(follow(second, data[25:], at, first=False)[-1], whole[-1])


def test_a_solution_is_that_of_dense_algebra() -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(5, 8, generator=generator, dtype=torch.float64)
    residual, other = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    root = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    rows = JacobianRows(5, 8, lambda: iter([(slice(None), matrix.clone())]), 2**30)
    squares = RememberingLeastSquares(rows, residual, root.T @ root)
    solution = squares.at(1e-3)
    assert solution is not None
    stacked = torch.cat([matrix, root, math.sqrt(1e-3) * torch.eye(8, dtype=torch.float64)])

    def dense(right: Tensor) -> Tensor:
        return -torch.linalg.lstsq(stacked, torch.cat([right, right.new_zeros(14)])[:, None]).solution[:, 0]

    assert torch.allclose(solution.step, dense(residual), rtol=1e-9)
    assert torch.allclose(solution.solve(other), dense(other), rtol=1e-9)
    fall = residual.square().sum() - (residual + matrix @ solution.step).square().sum()
    assert squares.predicted(solution) == pytest.approx(float(fall), rel=1e-9)
    assert squares.at(1e-16 * squares.scale) is None


def test_wide_networks_have_no_memory() -> None:
    """A step would cost the third power of the parameters, of which there are more than two per row."""
    memory = Memory(0.98, torch.zeros((), dtype=torch.float64), 9)
    rows = JacobianRows(4, 9, lambda: iter([(slice(None), torch.ones(4, 9, dtype=torch.float64))]), 2**30)
    for _ in range(3 * LOOKS):
        memory.points_drawn()
        assert memory.least_squares(rows, torch.ones(4, dtype=torch.float64)) is None
        memory.fitted(1e-9)
