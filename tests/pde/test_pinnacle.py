"""Problems of heat and potentials under ``scripts/pinnacle``: their solutions satisfy what they ask for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ntkrun.network import MLP
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Columns
from scripts.pinnacle.heat2d_ms import Heat2dMs
from scripts.pinnacle.hinv import HInv
from scripts.pinnacle.hnd import HNd
from scripts.pinnacle.pinv import PInv
from scripts.pinnacle.pnd import PNd
from scripts.pinnacle.poisson2d_c import Poisson2dC
from scripts.pinnacle.poisson2d_cg import Poisson2dCg
from tests.oracle import draw_points, term_columns

Array = NDArray[np.float64]


@pytest.mark.parametrize(
    "pde", [PNd(), HNd(), Heat2dMs(), PInv(noise=0), HInv(noise=0)], ids=lambda p: type(p).__name__
)
def test_closed_forms_have_no_residual(pde: PDE) -> None:
    objective = Objective(pde, MLP(4, 1, domain=pde.domain, outputs=len(pde.fields)).double())

    def solution(x: torch.Tensor) -> torch.Tensor:
        fields = pde.exact(pde.columns(x[:, : len(pde.coordinates)]))
        assert fields is not None
        return fields.reshape(len(x), -1)

    points = draw_points(objective, [15] * len(objective.terms))
    for i, term in enumerate(objective.terms):
        x = points[term.name]
        if term.derivatives == ("u_n",):
            places = x[:, : len(pde.coordinates)].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(solution(places).sum(), places)
            d = Columns({"u_n": (gradient[:, : len(term.columns)] * x[:, len(pde.coordinates) :]).sum(1)}, term.name)
        else:
            d = term_columns(solution, x, objective, i)
        residual = term.residual(pde.columns(x, further=term.columns), d)
        assert residual.abs().max() < 1e-10, term.name


def no_source(x: Array, y: Array) -> Array:
    return 0 * x * y


def charges(x: Array, y: Array) -> Array:
    return 10 * (17 + x**2 + y**2) * np.sin(np.pi * x) * np.sin(4 * np.pi * y)


@pytest.mark.parametrize(
    ("pde", "sides", "screening", "source"),
    [(Poisson2dC(), 1.0, 0.0, no_source), (Poisson2dCg(), 0.2, 64.0, charges)],
    ids=["poisson2d_c", "poisson2d_cg"],
)
def test_references_satisfy_the_equation(
    pde: PDE, sides: float, screening: float, source: Callable[[Array, Array], Array]
) -> None:
    """By central differences, to some hundredths of the second derivatives; at the sides exactly."""
    reference = pde.reference()
    assert reference is not None
    x, u = reference.axes["x"], reference.values[..., 0]
    for edge in (u[0], u[-1], u[:, 0], u[:, -1]):
        np.testing.assert_allclose(edge, sides, atol=1e-6)
    u_xx, u_yy = (
        np.diff(u, 2, axis)[(slice(None), slice(1, -1))[:: 1 - 2 * axis]] / (x[1] - x[0]) ** 2 for axis in (0, 1)
    )
    residual = u_xx + u_yy - screening * u[1:-1, 1:-1] + source(x[1:-1, None], x[None, 1:-1])
    assert (~np.isnan(residual)).sum() > 5000
    assert np.nanmean(residual**2) < 1e-3 * np.nanmean(u_xx**2)
