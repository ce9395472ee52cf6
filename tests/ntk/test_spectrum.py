import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ntkrun.geometry import Box
from ntkrun.ntk.spectrum import (
    condition_number,
    diagonal_blocks,
    drift,
    effective_rank,
    eigenvalues,
    kernel,
    least_effective_rank,
)
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.pde import PDE, Poisson, Wave
from tests.oracle import dense_jacobians, draw_batch, relative
from tests.problems import Plain, System, frozen_mlp, mlp

Network = Callable[[Box, int], nn.Module]
CASES: dict[str, tuple[type[PDE], Network]] = {
    "wave": (Wave, mlp),
    "two-residuals-per-point": (System, mlp),
    "frozen": (Wave, frozen_mlp),
    "per-point": (Poisson, Plain),
}


def started(pde: PDE, network: Network, counts: list[int]) -> tuple[Objective, dict[str, Tensor], Batch]:
    objective = Objective(pde, network(pde.domain, len(pde.fields)).double())
    return objective, *draw_batch(objective, counts[: len(objective.terms)])


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_spectra_are_those_of_the_dense_kernel(case: tuple[type[PDE], Network]) -> None:
    objective, points, batch = started(case[0](), case[1], [7, 5, 1, 4])
    jacobians = [j.numpy() for j in dense_jacobians(objective, points)]
    whole = kernel(objective, batch)
    blocks = diagonal_blocks(whole, objective.row_counts(batch))
    for matrix, j in zip((whole, *blocks), (np.concatenate(jacobians), *jacobians), strict=True):
        assert matrix.dtype == torch.float64
        expected = np.linalg.eigvalsh(j @ j.T)[::-1]
        assert eigenvalues(matrix).numpy() == pytest.approx(expected, rel=1e-9, abs=1e-12 * expected[0])


def test_a_matrix_that_is_not_finite_has_no_eigenvalues() -> None:
    for bad in (math.nan, math.inf):
        matrix = torch.eye(3, dtype=torch.float64)
        matrix[0, 1] = bad
        values = eigenvalues(matrix)
        assert values.isnan().all()
        assert effective_rank(values).isnan()
        assert condition_number(values).isnan()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], 1.0),
        ([3.0, 3.0, 3.0, 3.0], 4.0),
        ([2.0, 0.0, 0.0], 1.0),
        ([2.0, 0.0, -1e-15], 1.0),
        ([2.0, 1.0, 1.0], 2 * math.sqrt(2)),  # entropy (1/2) log 2 + (1/2) log 4
        ([0.9, 0.1], (10 / 9) ** 0.9 * 10**0.1),
        ([0.0, 0.0], 0.0),
    ],
)
def test_effective_rank(values: list[float], expected: float) -> None:
    spectrum = torch.tensor(values, dtype=torch.float64)
    assert effective_rank(spectrum).item() == pytest.approx(expected, rel=1e-14)
    assert effective_rank(1e6 * spectrum).item() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([8.0, 4.0, 2.0], 4.0), ([3.0], 1.0), ([1.0, 0.0], math.inf), ([1.0, -1e-17], math.inf), ([0.0], math.inf)],
)
def test_condition_number(values: list[float], expected: float) -> None:
    assert condition_number(torch.tensor(values, dtype=torch.float64)).item() == expected


def test_an_eigenvalue_within_round_off_is_zero() -> None:
    assert condition_number(torch.tensor([1.0, 1e-15], dtype=torch.float64)).item() == pytest.approx(1e15)
    assert condition_number(torch.tensor([1.0, 1e-16], dtype=torch.float64)).item() == math.inf


def test_drift() -> None:
    first = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert drift(first, first).item() == 0
    assert drift(torch.zeros(2, 2), first).item() == 1
    assert drift(first + torch.tensor([[0.0, 3.0], [4.0, 0.0]]), first).item() == 1
    assert drift(0 * first, 0 * first).item() == 0
    assert drift(first, 0 * first).item() == math.inf


def last_layer_alone(domain: Box, outputs: int = 1) -> nn.Module:
    network = mlp(domain, outputs)
    for layer in network.layers[:-1]:
        layer.requires_grad_(False)
    return network


@pytest.mark.parametrize(("network", "moves"), [(last_layer_alone, False), (mlp, True)], ids=["linear", "mlp"])
def test_the_kernel_moves_unless_the_network_is_linear_in_its_parameters(network: Network, moves: bool) -> None:
    objective, _, batch = started(Wave(), network, [7, 5, 3, 4])
    first = kernel(objective, batch)
    parameters = objective.parameter_vector()
    with objective.at(parameters + torch.randn_like(parameters)):
        now = kernel(objective, batch)
    assert (drift(now, first).item() > 0.1) if moves else (relative(now, first) < 1e-14)


@pytest.mark.parametrize("rest", [[1.0, 1.0], [0.5, 0.25], [0.9, 1e-12], []])
def test_the_least_effective_rank_of_a_spectrum_known_in_part(rest: list[float]) -> None:
    known = torch.tensor([5.0, 2.0, 1.0], dtype=torch.float64)
    others = torch.tensor(rest, dtype=torch.float64)
    least = float(least_effective_rank(known, others.sum()))
    exact = float(effective_rank(torch.cat([known, others])))
    if all(value == 1 for value in rest):
        assert least == pytest.approx(exact, rel=1e-12)
    assert float(effective_rank(known)) * 0.99 < least <= exact * (1 + 1e-12)
