"""Whether a few points hold most of what all points of a term hold together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ntkrun.objective import Objective
from ntkrun.objective.batch import Batch
from ntkrun.pde import PDE
from ntkrun.pde.check import place

LOOKED_AT = 1000  # the most points of a term
FEWEST = 50  # of fewer, a few are no small part
FEW = 50  # one point in so many


COUNT_LESS = (
    "; such points count less, by the median of |dr_k / dtheta|^2 over their own "
    "(point_weights=none leaves them as they are)"
)
FOLLOWS = (
    ", and its weight follows; multiply its residual by what is small there (for 2/r, by r), or try "
    "point_weights=capped or weights=none"
)


def held_by_few(objective: Objective, batch: Batch) -> dict[str, str]:
    """The terms most of whose trace a few points hold, each with a line that says how many and where.

    A coefficient without bounds, such as 2/r, does so: the mean of its square is infinite, and that over points is made
    by those nearest to r = 0. A term is named if one point in 50 holds more than half of its trace.

    Args:
        objective: the problem and network.
        batch: the points, with any point weights. Of each term the first 1,000 are looked at.
    """
    counts = [min(n, LOOKED_AT) for n in objective.point_counts(batch)]
    batch = objective.subset(batch, [torch.arange(n) for n in counts])
    points = objective.points(batch)
    found = {}
    for name, diagonal in zip(objective.names, objective.diagonals(batch), strict=True):
        holds = few_hold(objective.pde, diagonal.detach(), points[name], "its kernel's trace")
        if holds:
            found[name] = f"loss term {name}: {holds}"
    return found


def few_hold_loss(objective: Objective, batch: Batch, weights: Sequence[float]) -> str:
    """How many points hold more than half of the loss of the largest term, and where; empty if they are not few.

    Args:
        objective: the problem and network.
        batch: the points.
        weights: of the terms.
    """
    with torch.no_grad():
        rows = objective.residuals(batch)
    losses = [float(own.square().mean()) * weight for own, weight in zip(rows, weights, strict=True)]
    largest = losses.index(max(losses))
    name = objective.names[largest]
    points = objective.points(batch)[name]
    squares = rows[largest].double().reshape(-1, len(points)).square().sum(0)
    return few_hold(objective.pde, squares, points, f"that of loss term {name}")


def few_hold(pde: PDE, shares: Tensor, points: Tensor, whole: str) -> str:
    """How many points hold more than half of a sum, and where most of it is; empty if they are more than one in 50.

    Args:
        pde: names the coordinates.
        shares: of the points in the sum, ``[n]``.
        points: ``[n, d]``.
        whole: what the sum is called.
    """
    n, most = len(shares), shares.sort(descending=True)
    parts = most.values.cumsum(0) / most.values.sum()
    few = int((parts <= 0.5).sum()) + 1  # so many hold more than half
    if n < FEWEST or few > n // FEW or not torch.isfinite(parts).all():
        return ""
    hold = f"1 of {n} points holds" if few == 1 else f"{few} of {n} points hold"
    where = place(pde, points[most.indices[0]])
    return f"{hold} {100 * float(parts[few - 1]):.0f} % of {whole}, most at {where}"
