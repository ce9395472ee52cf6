"""Points that hold most of a term's trace are named, by dense float64 Jacobians."""

from __future__ import annotations

import pytest
import torch

from ntkrun.geometry import Box
from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.pde import PDE, Term
from ntkrun.training.few_points import held_by_few
from tests.oracle import dense_jacobians, draw_batch
from tests.problems import mlp


class Radial(PDE):
    """u_rr + (2/r) u_r = 0, times r if asked, with u = 1 at r = 1."""

    domain = Box.of(r=(0.0, 1.0))

    def __init__(self, multiplied: bool) -> None:
        self.multiplied = multiplied

    def terms(self) -> tuple[Term, ...]:
        return (
            Term(
                "residual",
                (self.domain,),
                ("u_r", "u_rr"),
                lambda x, d: x.r * d.u_rr + 2 * d.u_r if self.multiplied else d.u_rr + 2 / x.r * d.u_r,
            ),
            Term("surface", (self.domain.face("r", "high"),), ("u",), lambda x, d: d.u - 1),
        )


def lines(objective: Objective, batch: Batch) -> list[str]:
    return list(held_by_few(objective, batch).values())


def radial(multiplied: bool) -> Objective:
    torch.manual_seed(0)
    pde = Radial(multiplied)
    return Objective(pde, mlp(pde.domain).double())


@pytest.mark.parametrize("route", ["structured", "dense"])
def test_the_share_and_the_place_are_those_of_the_dense_jacobian(route: str) -> None:
    objective = radial(multiplied=False)
    objective.route = route  # type: ignore[assignment]
    points, batch = draw_batch(objective, [150, 1])
    parts = dense_jacobians(objective, points)[0].square().sum(1)
    largest = sorted((parts / parts.sum()).tolist(), reverse=True)
    assert largest[0] < 0.5 < sum(largest[:2])
    (line,) = lines(objective, batch)
    assert line.startswith(f"loss term residual: 2 of 150 points hold {100 * sum(largest[:2]):.0f} %")
    assert line.endswith(f"at r={points['residual'][parts.argmax(), 0]:.6g}")


def test_as_many_are_counted_as_hold_half() -> None:
    """Point weights that leave three points equal parts of nearly all of the trace."""
    objective = radial(multiplied=True)
    points, batch = draw_batch(objective, [150, 1])
    parts = dense_jacobians(objective, points)[0].square().sum(1)
    wanted = torch.full((150,), 1e-9, dtype=torch.float64)
    wanted[[10, 20, 30]] = torch.tensor([1.0, 0.9, 0.8], dtype=torch.float64)
    weights = {"residual": (wanted / parts)[:, None], "surface": torch.ones(1, 1, dtype=torch.float64)}
    (line,) = lines(objective, objective.weigh_points(batch, weights))
    assert line.startswith("loss term residual: 2 of 150 points hold 70 %")
    assert line.endswith(f"at r={points['residual'][10, 0]:.6g}")


def test_weights_of_points_count() -> None:
    """Weighted by r^2 the rows are those of the multiplied equation."""
    objective = radial(multiplied=False)
    points, batch = draw_batch(objective, [150, 1])
    weights = {"residual": points["residual"].square(), "surface": torch.ones(1, 1, dtype=torch.float64)}
    assert not lines(objective, objective.weigh_points(batch, weights))


def test_nothing_is_said_of_bounded_coefficients_or_of_few_points() -> None:
    objective = radial(multiplied=True)
    assert not lines(objective, draw_batch(objective, [150, 1])[1])
    objective = radial(multiplied=False)
    assert not lines(objective, draw_batch(objective, [49, 1])[1])
