"""Damped least squares against NumPy's dense solution of [J; sqrt(mu) I] d = [-R; 0]."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ntkrun.objective.jacobian_rows import JacobianRows, Places
from ntkrun.optimizer.least_squares import CHOLESKY_LIMIT, DampedLeastSquares, Direct, add_gram

SHAPES = {"N<P": (30, 70), "N=P": (50, 50), "N>P": (200, 40)}


def matrix(shape: tuple[int, int], smallest: float) -> Tensor:
    """Singular values from 1 down to ``smallest``."""
    generator = torch.Generator().manual_seed(0)
    n = min(shape)
    left = torch.linalg.qr(torch.randn(shape[0], n, dtype=torch.float64, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(shape[1], n, dtype=torch.float64, generator=generator))[0]
    return left * torch.logspace(0, np.log10(smallest), n, dtype=torch.float64) @ right.T


def rows_of(jacobian: Tensor, memory: int = 2**30, block: int = 1000) -> JacobianRows:
    def make() -> Iterator[tuple[Places, Tensor]]:
        for places in torch.arange(len(jacobian)).split(block):
            yield places, jacobian[places]

    return JacobianRows(*jacobian.shape, make, memory)


class Thread:
    """One of several threads in place of processes: what they give is added up in the order of their numbers."""

    def __init__(self, rank: int, given: list[Any], barrier: Barrier) -> None:
        self.rank, self.count = rank, len(given)
        self._given, self._barrier = given, barrier
        self.exchanged = 0  # numbers for others

    def sum(self, tensor: Tensor) -> Tensor:
        self._given[self.rank] = tensor.clone()
        self._barrier.wait(60)
        tensor.copy_(torch.stack(list(self._given)).sum(0))
        self._barrier.wait(60)
        return tensor

    def exchange(self, parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        self._given[self.rank] = list(parts)
        self._barrier.wait(60)
        received = [theirs[self.rank].clone() for theirs in self._given]
        self._barrier.wait(60)
        assert [len(part) for part in received] == list(sizes)
        self.exchanged += sum(len(part) for rank, part in enumerate(parts) if rank != self.rank)
        return received


def solution(jacobian: Tensor, right: Tensor, mu: float) -> Tensor:
    stacked = np.vstack([jacobian.numpy(), np.sqrt(mu) * np.eye(jacobian.shape[1])])
    padded = np.concatenate([-right.numpy(), np.zeros(jacobian.shape[1])])
    return torch.from_numpy(np.linalg.lstsq(stacked, padded, rcond=None)[0])


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("held", [True, False], ids=["held", "in blocks"])
@pytest.mark.parametrize("solver", ["cholesky", "qr"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
@pytest.mark.parametrize("mu", [1.0, 1e-4, 1e-8, 1e-11])
def test_steps_and_other_right_sides(shape: tuple[int, int], solver: Direct, mu: float, held: bool) -> None:
    """The matrix has singular values far below sqrt(mu), so that damping decides what is solved."""
    jacobian = matrix(shape, 1e-9)
    generator = torch.Generator().manual_seed(1)
    right, other = torch.randn(2, shape[0], dtype=torch.float64, generator=generator)
    squares = DampedLeastSquares(rows_of(jacobian, 2**30 if held else 1, 7), right, solver)
    if solver == "qr" and not held and shape[0] < shape[1]:
        assert squares.at(mu) is None  # the transpose must be at hand as a whole
        return
    found = squares.at(mu)
    assert found is not None
    assert distance(found.step, solution(jacobian, right, mu)) < 1e-8
    assert distance(found.solve(other), solution(jacobian, other, mu)) < 1e-7
    fall = right.square().sum() - (right + jacobian @ found.step).square().sum()
    assert squares.predicted(found) == pytest.approx(float(fall), rel=1e-6)


@pytest.mark.parametrize("memory", [2**30, 15000, 100], ids=["held by all", "held by each", "in blocks"])
@pytest.mark.parametrize("solver", ["cholesky", "qr", "auto"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_rows_of_several_processes(shape: tuple[int, int], solver: Direct, memory: int) -> None:
    """Unequal shares of them; every process finds the same bits."""
    jacobian = matrix(shape, 1e-9)
    right = torch.randn(shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    given, barrier, exchanged = [right] * 3, Barrier(3), [0] * 3

    def solve(rank: int) -> Tensor | None:
        def make() -> Iterator[tuple[Places, Tensor]]:
            for places in torch.arange(len(jacobian))[
                rank * rank * 5 : (rank + 1) ** 2 * 5 if rank < 2 else None
            ].split(7):
                yield places, jacobian[places]

        thread = Thread(rank, given, barrier)
        rows = JacobianRows(*jacobian.shape, make, memory, thread)
        found = DampedLeastSquares(rows, right, solver).at(1e-8)
        exchanged[rank] = thread.exchanged
        return None if found is None else found.step

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(solve, range(3))
    if first is None:  # the transpose must be at hand as a whole
        assert (solver, memory < 2**30, shape[0] < shape[1]) == ("qr", True, True)
    for each in others:
        assert each is first or (first is not None and each is not None and torch.equal(each, first))
    assert first is None or distance(first, solution(jacobian, right, 1e-8)) < 1e-8
    if solver == "cholesky" and shape[0] < shape[1]:  # the kernel from two thirds of every process's rows
        assert sum(exchanged) == pytest.approx(shape[0] * shape[1] * 2 / 3, rel=0.05)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_solvers_meet_where_one_takes_over_from_the_other(shape: tuple[int, int]) -> None:
    jacobian, right = matrix(shape, 1e-6), torch.ones(shape[0], dtype=torch.float64)
    squares = DampedLeastSquares(rows_of(jacobian), right)
    mu = 1.01 * CHOLESKY_LIMIT * squares.scale
    by_gram, by_qr = squares.gram.at(mu), squares.qr.at(mu)
    assert by_gram is not None
    assert by_qr is not None
    assert distance(by_gram.step, by_qr.step) < 1e-7
    below = squares.at(0.5 * mu)
    assert below is not None
    assert distance(below.step, solution(jacobian, right, 0.5 * mu)) < 1e-7


@pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))
def test_rough_solutions_are_as_accurate_as_asked_and_spare_corrections(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    jacobian = matrix(shape, 1e-9)
    other = torch.randn(shape[0], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    squares = DampedLeastSquares(rows_of(jacobian), torch.ones_like(other), "cholesky")
    mu = 1e3 * CHOLESKY_LIMIT * squares.scale
    found = squares.at(mu)
    assert found is not None
    products = []
    original = squares.gram.damped
    monkeypatch.setattr(squares.gram, "damped", lambda *given: products.append(1) or original(*given))
    assert distance(found.solve(other, 1e-3), solution(jacobian, other, mu)) < 1e-3
    assert not products
    assert distance(found.solve(other), solution(jacobian, other, mu)) < 1e-8
    assert products


def test_auto_takes_qr_below_the_limit_only() -> None:
    jacobian, right = matrix((60, 20), 1e-6), torch.ones(60, dtype=torch.float64)
    squares = DampedLeastSquares(rows_of(jacobian), right)
    assert squares.at(2 * CHOLESKY_LIMIT * squares.scale) is not None
    assert squares._qr is None
    assert squares.at(0.5 * CHOLESKY_LIMIT * squares.scale) is not None
    assert squares._qr is not None
    alone = DampedLeastSquares(rows_of(jacobian), right, "cholesky")
    assert alone.at(0.5 * CHOLESKY_LIMIT * alone.scale) is None


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 300])
def test_gram_in_blocks_of_columns(columns: int) -> None:
    block = torch.randn(20, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = torch.zeros(columns, columns, dtype=torch.float64)
    add_gram(out, block)
    add_gram(out, block)
    assert torch.allclose(out.tril(), 2 * (block.T @ block).tril(), rtol=1e-12, atol=1e-12)
