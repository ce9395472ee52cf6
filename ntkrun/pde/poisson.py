"""Poisson's equation in one dimension."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term


class Poisson(PDE):
    """u_xx = -(a pi)^2 sin(a pi x) on [0, 1], u = 0 at both ends; solution u = sin(a pi x).

    Source: Wang, Yu, Perdikaris, arXiv 2007.14527, section 7.1 (a = 4 there).

    Args:
        a: number of half waves, a whole number, so that the solution vanishes at x = 1.
        hard_boundary: multiply the network by x (1 - x), so that the boundary term holds exactly.
    """

    def __init__(self, a: Positive[int] = 4, hard_boundary: bool = False) -> None:
        self.k = a * math.pi
        self.domain = Box.of(x=(0.0, 1.0))
        self.built_in = frozenset({"boundary"} if hard_boundary else ())

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("u_xx",), lambda x, d: d.u_xx + self.k**2 * torch.sin(self.k * x.x)),
            Term("boundary", self.domain.faces("x"), ("u",), lambda x, d: d.u),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return (x.x * (1 - x.x) * u.u,)

    def exact(self, x: Columns) -> Tensor:
        return torch.sin(self.k * x.x)
