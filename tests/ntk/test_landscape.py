"""Planes through the parameters, against closed forms and dense Jacobians in float64."""

from __future__ import annotations

import pytest
import torch

from ntkrun.geometry import Sampler
from ntkrun.network import MLP
from ntkrun.ntk.landscape import losses_on_plane, random_directions, steepest_directions
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.pde import Wave


@pytest.fixture
def objective() -> Objective:
    pde = Wave()
    network = MLP(width=6, depth=2, domain=pde.domain, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1  # biases begin at zero
    return Objective(pde, network)


@pytest.fixture
def batch(objective: Objective) -> Batch:
    points = {t.name: Sampler(t.region, 5 + k, "uniform", seed=k).draw() for k, t in enumerate(objective.terms)}
    return objective.batch(points)


def test_rows_of_random_directions_have_the_norm_of_the_weights(objective: Objective) -> None:
    directions = random_directions(objective, torch.Generator().manual_seed(1))
    for direction in directions:
        for name, part in objective.layout.unflatten(direction).items():
            parameter = objective.detached()[name]
            if parameter.dim() < 2:
                assert not part.any()
            else:
                assert torch.allclose(part.norm(dim=1), parameter.norm(dim=1))
    assert abs(torch.cosine_similarity(directions[0], directions[1], dim=0)) < 0.5


def test_steepest_directions_are_eigenvectors_of_the_gauss_newton_matrix(objective: Objective, batch: Batch) -> None:
    weights = torch.tensor([1.0, 30.0, 200.0, 3.0], dtype=torch.float64)
    directions = steepest_directions(objective, batch, weights)
    matrix = sum(w / j.rows * j.dense().T @ j.dense() for w, j in zip(weights, objective.jacobians(batch), strict=True))
    values, vectors = torch.linalg.eigh(matrix)
    assert torch.allclose(directions.norm(dim=1), objective.parameter_vector().norm() / 2)
    for direction, value, vector in zip(directions, values.flip(0), vectors.T.flip(0), strict=False):
        assert torch.allclose(matrix @ direction, value * direction, rtol=1e-6, atol=1e-8 * float(value))
        assert abs(torch.cosine_similarity(direction, vector, dim=0)) == pytest.approx(1, abs=1e-8)


def test_losses_are_those_of_the_moved_network(objective: Objective, batch: Batch) -> None:
    here = objective.parameter_vector()
    directions = random_directions(objective, torch.Generator().manual_seed(1))
    coordinates = torch.tensor([-0.5, 0.0, 1.0], dtype=torch.float64)
    losses = losses_on_plane(objective, batch, directions, coordinates)
    assert torch.equal(objective.parameter_vector(), here)
    assert torch.equal(losses[:, 1, 1], objective.losses(batch))
    torch.nn.utils.vector_to_parameters(here - 0.5 * directions[0] + directions[1], objective.network.parameters())
    assert torch.allclose(losses[:, 0, 2], objective.losses(batch))


def test_the_weighted_loss_rises_by_the_eigenvalue(objective: Objective, batch: Batch) -> None:
    """Of a network that is linear in its parameters, and zero: w sum_i r_i^2 / N along v is a^2 v^T J^T W J v."""
    weights = torch.ones(4, dtype=torch.float64)
    with torch.no_grad():
        for parameter in objective.network.parameters():
            parameter.zero_()
        list(objective.network.parameters())[-1].fill_(1e-3)  # the last bias: outputs are linear in it alone
    (direction, _) = steepest_directions(objective, batch, weights)
    step = torch.tensor([-1e-3, 0.0, 1e-3], dtype=torch.float64)
    losses = losses_on_plane(objective, batch, torch.stack([direction, direction]), step).sum(0)
    curvature = (losses[0, 1] - 2 * losses[1, 1] + losses[2, 1]) / 1e-6
    dense = torch.cat([j.dense() / j.rows**0.5 for j in objective.jacobians(batch)])
    assert curvature == pytest.approx(2 * float((dense @ direction).square().sum()), rel=1e-4)
