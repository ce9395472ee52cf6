"""Points at which diag(K_ii) is looked at where a part of it alone is known at all of them.

With the known part q, and points drawn with chances w in proportion to it but for a share, the mean of
``(d_k - q_k) / w_k`` over the drawn points plus ``sum q`` has the expectation ``sum d``, whatever q is: sampling with
probability proportional to size and a difference estimate (C.-E. Sarndal, B. Swensson, J. Wretman, "Model Assisted
Survey Sampling", sections 3.6 and 6.3). Where a few points hold most of the trace, these are drawn nearly always.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

EQUAL = 0.1  # of the chances of the points, which is the same for all


class Chosen(NamedTuple):
    """Points of a term.

    Attributes:
        points: indices, ``[m]``; or of all N points in the order of a curve, where there are ``places``.
        places: where along that curve, by the chances of the points on it, those lie that are drawn, ``[m]`` of [0, 1);
            none, ``[0]``, where they are given.
    """

    points: Tensor
    places: Tensor

    def whole(self, count: int) -> bool:
        """Whether these are all of so many points."""
        return not len(self.places) and len(self.points) == count

    def drawn(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the drawn points, ``[m]``, of which one may come more than once, and their chances, ``[m]``.

        Args:
            known: the part of diag(K_ii) that is known at all points, ``[N]``.
        """
        count = len(known)
        if not len(self.places):
            return self.points, torch.full_like(known[: len(self.points)], 1 / count)
        along = known[self.points].double()
        total = along.sum()
        chances = torch.where(total > 0, along / total, 1 / count) * (1 - EQUAL) + EQUAL / count
        ends = chances.cumsum(0)
        k = torch.searchsorted(ends, self.places * ends[-1]).clamp(max=count - 1)
        return self.points[k], chances[k].to(known)


def samples(known: Tensor, chosen: Chosen, chances: Tensor, rest: Tensor) -> Tensor:
    """What the trace of a term is estimated from: a number and samples of what it lacks, ``[1 + m]``.

    Where points are drawn by their chances, the number is the sum of the known part, and samples are of the rest. Where
    they are given it is 0: they serve as they are.

    Args:
        known: the part of diag(K_ii) that is known at all points, ``[N]``.
        chosen: the points.
        chances: of the drawn points, ``[m]``.
        rest: of diag(K_ii) at these, ``[m]``.
    """
    if len(chosen.places):
        return torch.cat([known.sum()[None], rest / chances])
    return torch.cat([known.new_zeros(1), (known.index_select(0, chosen.points) + rest) / chances])
