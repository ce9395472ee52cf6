"""Steps from sketches against NumPy's dense solution of [J; sqrt(mu) I] d = [-R; 0]."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ntkrun.optimizer import GaussNewton
from ntkrun.optimizer.least_squares import CHOLESKY_LIMIT, DampedLeastSquares
from ntkrun.optimizer.sketched import ITERATIONS, LARGEST, SketchedLeastSquares, SketchedSolution, Sketching
from ntkrun.optimizer.solvers import LARGE, Solver, least_squares, matrix_entries, matrix_work, resolve
from tests.optimizer.test_gauss_newton import Toy, exponentials, started
from tests.optimizer.test_least_squares import distance, matrix, rows_of, solution

SHAPES = {"N<P": (120, 300), "N=P": (200, 200), "N>P": (600, 80)}
SIZES = {"N<P": 60, "N=P": 100, "N>P": 40}


def system(
    shape: tuple[int, int], smallest: float, size: int, tolerance: float | None = 1e-10, held: bool = True
) -> tuple[Tensor, Tensor, SketchedLeastSquares]:
    """J, R and what solves them."""
    jacobian = matrix(shape, smallest)
    right = torch.randn(shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rows = rows_of(jacobian, 2**30 if held else 1, 7)
    return jacobian, right, SketchedLeastSquares(rows, right, Sketching(size, tolerance))


@pytest.mark.parametrize("held", [True, False], ids=["held", "in blocks"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("mu", "accuracy"), [(1.0, 1e-9), (1e-4, 1e-9), (1e-8, 1e-8), (1e-11, 1e-6)])
def test_steps_and_other_right_sides(shape: str, mu: float, accuracy: float, held: bool) -> None:
    """The matrix has singular values far below sqrt(mu), so that damping decides what is solved."""
    jacobian, right, squares = system(SHAPES[shape], 1e-9, SIZES[shape], accuracy / 10, held)
    found = squares.at(mu)
    assert isinstance(found, SketchedSolution)
    assert found.iterations < ITERATIONS
    assert distance(found.step, solution(jacobian, right, mu)) < accuracy
    fall = right.square().sum() - (right + jacobian @ found.step).square().sum()
    assert squares.predicted(found) == pytest.approx(float(fall), rel=1e-6)
    other = torch.randn(len(right), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert distance(found.solve(other), solution(jacobian, other, mu)) < accuracy
    assert distance(found.solve(other, 1e-2), solution(jacobian, other, mu)) < 1e-2


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6, 1e-8])
@pytest.mark.parametrize("shape", SHAPES)
def test_as_accurate_as_asked_for(shape: str, tolerance: float) -> None:
    jacobian, right, squares = system(SHAPES[shape], 1e-6, SIZES[shape], tolerance)
    for mu in (1e-2, 1e-6):
        found = squares.at(mu)
        assert found is not None
        assert distance(found.step, solution(jacobian, right, mu)) < 2 * tolerance


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bound_of_the_error_holds(shape: str) -> None:
    """Also where many eigenvalues above mu are missing from the sketch."""
    for size in (10, 20, 60):
        jacobian, right, squares = system(SHAPES[shape], 1e-3, size, 1e-3)
        for mu in (1e-2, 1e-3):
            found = squares.at(mu)
            assert isinstance(found, SketchedSolution)
            assert found.iterations < ITERATIONS
            assert distance(found.step, solution(jacobian, right, mu)) < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_a_sketch_of_full_rank_is_the_matrix_itself(shape: str) -> None:
    jacobian, right, squares = system(SHAPES[shape], 1e-3, min(SHAPES[shape]), tolerance=None)
    found = squares.at(1e-4)
    assert found is not None
    assert distance(found.step, solution(jacobian, right, 1e-4)) < 1e-9


@pytest.mark.parametrize("shape", SHAPES)
def test_sketch_and_solve_is_the_step_of_the_sketched_model(shape: str) -> None:
    """A'A is the Nyström approximation of the smaller of J J' and J'J, and takes its place."""
    jacobian, right, squares = system(SHAPES[shape], 1e-3, 30, tolerance=None)
    n = min(SHAPES[shape])
    approximate = squares.sketch.T @ squares.sketch
    exact = jacobian @ jacobian.T if squares.kernel_side else jacobian.T @ jacobian
    assert squares.kernel_side == (SHAPES[shape][0] <= SHAPES[shape][1])
    assert torch.linalg.matrix_rank(approximate) == 30
    assert torch.linalg.eigvalsh(exact - approximate).min() > -1e-12
    assert torch.linalg.eigvalsh(approximate)[-1] > 0.8 * torch.linalg.eigvalsh(exact)[-1]
    for mu in (1e-2, 1e-5):
        found = squares.at(mu)
        assert isinstance(found, SketchedSolution)
        assert found.iterations == 0
        damped = approximate + mu * torch.eye(n, dtype=torch.float64)
        if squares.kernel_side:
            step = -jacobian.T @ torch.linalg.solve(damped, right)
        else:
            step = -torch.linalg.solve(damped, jacobian.T @ right)
        assert distance(found.step, step) < 1e-8
        assert distance(found.image, jacobian @ step) < 1e-8
        fall = right.square().sum() - (right + jacobian @ found.step).square().sum()
        assert squares.predicted(found) == pytest.approx(float(fall), rel=1e-6)


def test_the_same_residual_draws_the_same_sketch() -> None:
    _, right, first = system((60, 30), 1e-3, 20)
    again = SketchedLeastSquares(first.rows, right.clone(), Sketching(20))
    other = SketchedLeastSquares(first.rows, right * (1 + 1e-15), Sketching(20))
    assert torch.equal(first.sketch, again.sketch)
    assert not torch.allclose(first.sketch, other.sketch)


def test_dampings_below_round_off_are_not_solved() -> None:
    _, _, squares = system((60, 30), 1e-3, 20)
    assert squares.at(0.5 * CHOLESKY_LIMIT * squares.scale) is None


@pytest.mark.parametrize("solver", ["sketched", "sketch_and_solve"])
def test_reaches_the_solution(solver: Solver) -> None:
    toy, optimizer = Toy(exponentials, torch.tensor([1.0, 3.0], dtype=torch.float64)), started(solver=solver)
    for _ in range(60):
        if optimizer.ended():
            break
        optimizer.step_on_rows(toy)
        toy.move(toy.last)
    assert torch.allclose(toy.parameters, torch.tensor([2.0, 0.7], dtype=torch.float64), atol=1e-9)


def test_a_step_as_by_cholesky() -> None:
    """Geodesic acceleration and corrections as well."""
    found = []
    for options in ({"solver": "cholesky"}, {"solver": "sketched", "sketch_size": 8, "tolerance": 1e-10}):
        toy, optimizer = Toy(exponentials, torch.tensor([1.0, 3.0], dtype=torch.float64)), started(**options)
        optimizer.step_on_rows(toy)
        found.append(toy.last)
    assert distance(found[1], found[0]) < 1e-8


def test_the_solver_goes_by_rows_and_parameters() -> None:
    assert resolve("auto", LARGE, LARGE - 1) == resolve("auto", LARGE - 1, 10 * LARGE) == "auto"
    assert resolve("auto", LARGE, LARGE) == "sketched"
    assert resolve("cholesky", LARGE, LARGE) == "cholesky"
    small = rows_of(matrix((20, 10), 1e-3))
    right = torch.ones(20, dtype=torch.float64)
    assert isinstance(least_squares(small, right, "auto", "auto", 1e-6), DampedLeastSquares)
    assert isinstance(least_squares(small, right, "sketched", "auto", 1e-6), SketchedLeastSquares)
    assert not GaussNewton().wants_factors(LARGE, LARGE - 1)
    assert GaussNewton().wants_factors(LARGE, LARGE)
    assert GaussNewton(solver="sketch_and_solve").wants_factors(10, 10)


def test_sizes_of_sketches_stay_within_memory() -> None:
    assert Sketching().rank(9000, 4000) == 500
    assert Sketching().rank(4000, 1000) == 256
    assert Sketching().rank(4000, 80) == 80
    assert Sketching().rank(30, 1000) == Sketching(50).rank(1000, 30) == 30
    assert Sketching().rank(10**5, 10**5) * 10**5 <= LARGEST
    assert matrix_entries("sketched", 200, 10**5, 10**4) == 4 * 200 * 10**5 + 3 * 200**2
    assert matrix_entries("auto", "auto", 100, 50) == 3 * 50**2
    assert matrix_work("sketched", 100, 10**4, 10**4) < 0.02 * matrix_work("cholesky", 100, 10**4, 10**4)
    assert 8 * matrix_entries("auto", "auto", 10**5, 10**5) < 2 * 2**30
