"""Low-rank kernels against the dense kernel and SciPy's Lanczos iteration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from ntkrun.geometry import Box
from ntkrun.jacobian import DenseJacobian, Jacobian, ParameterLayout
from ntkrun.ntk.nystrom import LowRankKernel, eigenvalue_errors, leading, low_rank_drift, nystrom
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Poisson, Wave
from tests.oracle import dense_jacobians, draw_batch
from tests.problems import Plain, System, mlp

CASES: dict[str, tuple[type[PDE], Callable[[Box, int], nn.Module]]] = {
    "wave": (Wave, mlp),
    "two-residuals-per-point": (System, mlp),
    "per-point": (Poisson, Plain),
}


def started(case: str, counts: tuple[int, ...] = (40, 10, 9, 8)) -> tuple[Jacobian, Tensor]:
    """J as an operator, and K from rows made one by one."""
    torch.manual_seed(0)
    pde, network = CASES[case][0](), CASES[case][1]
    objective = Objective(pde, network(pde.domain, len(pde.fields)).double())
    points, batch = draw_batch(objective, list(counts[: len(objective.terms)]))
    matrix = torch.cat(dense_jacobians(objective, points))
    return objective.jacobian(batch), matrix @ matrix.T


def gaussian(size: int, rows: int) -> Tensor:
    return torch.randn(size, rows, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("probing", ["gaussian", "columns"])
@pytest.mark.parametrize("case", CASES)
def test_the_formula(case: str, probing: str) -> None:
    jacobian, kernel = started(case)
    n = jacobian.rows
    probes = gaussian(6, n) if probing == "gaussian" else torch.eye(n, dtype=torch.float64)[:: n // 6]
    found = nystrom(jacobian, probes)
    k = kernel.numpy()
    omega = probes.T.numpy()
    expected = k @ omega @ np.linalg.pinv(omega.T @ k @ omega, rcond=1e-13, hermitian=True) @ omega.T @ k
    scale = np.linalg.norm(k)
    assert np.linalg.norm(found.dense().numpy() - expected) < 1e-6 * scale
    assert found.missing == pytest.approx(np.trace(k) - np.trace(expected), abs=1e-6 * scale)
    assert np.linalg.eigvalsh(k - found.dense().numpy()).min() > -1e-12 * scale
    identity = found.vectors.T @ found.vectors
    assert torch.allclose(identity, torch.eye(len(probes), dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_eigenvalues_are_bounded_from_both_sides(case: str) -> None:
    jacobian, kernel = started(case)
    exact = torch.linalg.eigvalsh(kernel).flip(0)
    for size in (2, 5, 10):
        found = nystrom(jacobian, gaussian(size, jacobian.rows))
        assert (found.values <= exact[:size] + 1e-12 * exact[0]).all()
        assert (exact[:size] <= found.values + found.missing + 1e-10 * exact[0]).all()


def test_with_as_many_probes_as_rows_the_kernel_is_exact() -> None:
    jacobian, kernel = started("wave")
    found = nystrom(jacobian, gaussian(jacobian.rows, jacobian.rows))
    assert torch.linalg.matrix_norm(found.dense() - kernel) < 1e-10 * torch.linalg.matrix_norm(kernel)
    assert found.missing < 1e-10 * float(kernel.trace())


def test_products_and_solutions() -> None:
    jacobian, _ = started("wave")
    found = nystrom(jacobian, gaussian(12, jacobian.rows))
    w = gaussian(3, jacobian.rows)
    dense = found.dense()
    assert torch.allclose(found.matvec(w), w @ dense, rtol=1e-9, atol=1e-9 * float(dense.norm()))
    for mu in (1e-3, 1.0):
        damped = dense + mu * float(found.values[0]) * torch.eye(len(dense), dtype=torch.float64)
        exact = torch.linalg.solve(damped, w.T).T
        assert torch.linalg.vector_norm(found.solve(w, mu * float(found.values[0])) - exact) < 1e-9 * exact.norm()


@pytest.mark.parametrize("case", CASES)
def test_leading_eigenvalues_are_those_of_lanczos(case: str) -> None:
    jacobian, kernel = started(case)
    found = leading(jacobian, 6, torch.Generator().manual_seed(0))

    def product(w: np.ndarray) -> np.ndarray:
        return jacobian.kernel_matvec(torch.from_numpy(w.reshape(1, -1)))[0].numpy()

    operator = LinearOperator((jacobian.rows,) * 2, matvec=product, dtype=np.float64)
    expected = np.sort(eigsh(operator, 6, v0=np.ones(jacobian.rows), return_eigenvectors=False))[::-1]
    assert found.values.numpy() == pytest.approx(expected, rel=1e-4)
    left = float(kernel.trace()) - expected.sum()
    assert left - 1e-9 * expected[0] <= found.missing <= left + 6e-4 * expected[0]


@pytest.mark.parametrize("case", CASES)
def test_errors_of_eigenvalues_are_residual_norms(case: str) -> None:
    jacobian, kernel = started(case)
    exact = np.linalg.eigvalsh(kernel.numpy())
    found = nystrom(jacobian, gaussian(3, jacobian.rows))
    errors = eigenvalue_errors(jacobian, found).numpy()
    values, vectors = found.values.numpy(), found.vectors.numpy()
    scale = 1e-12 * exact[-1]
    assert errors == pytest.approx(np.linalg.norm(kernel.numpy() @ vectors - vectors * values, axis=0), abs=scale)
    nearest = np.abs(exact[:, None] - values).min(axis=0)
    assert (nearest <= errors + scale).all()
    assert errors.max() > 10 * scale  # there is something to bound


def test_drift_of_low_rank_kernels() -> None:
    """Two of rank 3 with vectors of their own: |K - K_0| / |K_0| from the matrices."""
    kernels = []
    for seed in (1, 2):
        vectors = torch.linalg.qr(torch.randn(9, 3, generator=torch.Generator().manual_seed(seed)).double()).Q
        kernels.append(LowRankKernel(vectors, torch.tensor([3.0, 1.0, 0.1], dtype=torch.float64) * seed, 0.0))
    now, first = kernels
    expected = torch.linalg.norm(now.dense() - first.dense()) / torch.linalg.norm(first.dense())
    assert float(low_rank_drift(now, first)) == pytest.approx(float(expected), rel=1e-12)
    assert float(low_rank_drift(now, now)) == 0


def test_power_iterations_help_where_the_spectrum_falls_slowly() -> None:
    """Eigenvalues 1, 1/2, 1/3, ...: without iterations the sixth is far off, with two it is not."""
    n = 200
    rotation = torch.linalg.qr(gaussian(n, n)).Q
    matrix = rotation * (1 / torch.arange(1, n + 1, dtype=torch.float64)).sqrt() @ rotation.T
    network = nn.Linear(n, 1, bias=False)
    jacobian = DenseJacobian(matrix, ParameterLayout(network))
    errors = []
    for iterations in (0, 2):
        values = leading(jacobian, 6, torch.Generator().manual_seed(0), iterations).values
        errors.append(float((values * torch.arange(1, 7) - 1).abs().max()))
    assert errors[0] > 0.1
    assert errors[1] < 0.02
