"""The Helmholtz equation in two dimensions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.types import NonNegative, Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term


class Helmholtz(PDE):
    """u_xx + u_yy + k^2 u = q on [-1, 1]^2, u = 0 on the edges; solution u = sin(a1 pi x) sin(a2 pi y).

    The right-hand side is q = (k^2 - pi^2 (a1^2 + a2^2)) u.
    Source: Wang, Teng, Perdikaris, arXiv 2001.04536 (a1 = 1, a2 = 4, k = 1 there).

    Args:
        a1: number of waves along x.
        a2: number of waves along y.
        k: wave number.
        hard_boundary: multiply the network by (1 - x^2) (1 - y^2), so that the boundary term holds exactly.
    """

    def __init__(
        self, a1: Positive[int] = 1, a2: Positive[int] = 4, k: NonNegative[float] = 1.0, hard_boundary: bool = False
    ) -> None:
        self.a1 = a1
        self.a2 = a2
        self.k = k
        self.domain = Box.of(x=(-1.0, 1.0), y=(-1.0, 1.0))
        self.built_in = frozenset({"boundary"} if hard_boundary else ())

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("u",), self._residual, operators={"laplacian": {"u_xx": 1, "u_yy": 1}}),
            Term("boundary", self.domain.faces("x", "y"), ("u",), lambda x, d: d.u),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return ((1 - x.x**2) * (1 - x.y**2) * u.u,)

    def exact(self, x: Columns) -> Tensor:
        return torch.sin(self.a1 * math.pi * x.x) * torch.sin(self.a2 * math.pi * x.y)

    def _residual(self, x: Columns, d: Columns) -> Tensor:
        source = (self.k**2 - math.pi**2 * (self.a1**2 + self.a2**2)) * self.exact(x)
        residual: Tensor = d.laplacian + self.k**2 * d.u - source
        return residual
