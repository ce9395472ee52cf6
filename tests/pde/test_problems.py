"""Every problem's solution satisfies its own terms."""

import pytest
import torch

from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Poisson, Wave
from tests.oracle import draw_points, term_columns

PROBLEMS = {
    "poisson": Poisson(),
    "poisson-a2": Poisson(a=2),
    "wave": Wave(),
    "wave-a1-c3": Wave(a=1.0, c=3.0),
}


@pytest.mark.parametrize("pde", PROBLEMS.values(), ids=PROBLEMS)
def test_the_solution_has_no_residual(pde: PDE) -> None:
    objective = Objective(pde, MLP(4, 1, domain=pde.domain).double())

    def solution(x: torch.Tensor) -> torch.Tensor:
        u = pde.exact(pde.columns(x))
        assert u is not None
        return u.reshape(len(x), -1)

    points = draw_points(objective, [50] * len(objective.terms))
    for i, term in enumerate(objective.terms):
        x = points[term.name]
        columns = term_columns(solution, x, objective, i)
        residual = term.residual(pde.columns(x), columns)
        size = max(getattr(columns, name).abs().max().item() for name in term.derivatives)
        assert residual.abs().max() < 1e-8 * max(size, 1.0), term.name


def test_poisson_needs_whole_waves() -> None:
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    pde = Poisson(a=3)
    u = pde.exact(pde.columns(x))
    assert u is not None
    assert u.abs().max() < 1e-14
