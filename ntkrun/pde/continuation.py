"""Coefficients that change along the training, from those of an easier problem to the problem's own."""

from __future__ import annotations

import math
from typing import Any

from ntkrun.pde.base import Columns, ProblemError

UNTIL = 0.8  # of the run


def continuation(x: Columns, first: float, last: float, until: float = UNTIL) -> Any:
    """A coefficient that goes from ``first`` to ``last`` along the training, in equal ratios, and stays there.

    With s the part of the run, or time window, that is done, it is last (first / last)^max(0, 1 - s / until). Small
    coefficients of the highest derivative are meant: the shock or the layer that they make is learnt while it is thick,
    and followed while it becomes thin (continuation in a parameter; Allgower, Georg, Introduction to Numerical
    Continuation Methods, SIAM 2003).

    Args:
        x: what the residual is given.
        first: the coefficient at the first step, such as a tenth of the size of the domain.
        last: the problem's own.
        until: the part of the run after which it is the problem's own.

    Returns:
        A number for all points, ``[]``.

    Raises:
        ProblemError: the coefficients are not of one sign, or ``until`` is not above 0 and at most 1.
    """
    if not (first * last > 0 and math.isfinite(first * last)):
        raise ProblemError(f"continuation: first={first:g} and last={last:g}, numbers of one sign are expected")
    if not 0 < until <= 1:
        raise ProblemError(f"continuation: until={until:g}, above 0 and at most 1 is expected")
    left = 1 - x.progress / until
    return last * (first / last) ** ((left + abs(left)) / 2)
