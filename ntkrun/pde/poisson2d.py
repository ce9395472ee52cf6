"""Poisson's equation in two dimensions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term


class Poisson2D(PDE):
    """u_xx + u_yy = f on [0, 1]^2, u = 0 on the edges; solution u = sin(a pi x) sin(b pi y).

    The right-hand side is f = -pi^2 (a^2 + b^2) u.
    Source: a separable eigenfunction of the Laplacian, the product of two solutions of ``poisson``.

    Args:
        a: number of half waves along x.
        b: number of half waves along y.
        hard_boundary: multiply the network by x (1 - x) y (1 - y), so that the boundary term holds exactly.
    """

    def __init__(self, a: Positive[int] = 2, b: Positive[int] = 2, hard_boundary: bool = False) -> None:
        self.a = a
        self.b = b
        self.domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0))
        self.built_in = frozenset({"boundary"} if hard_boundary else ())

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), (), self._residual, operators={"laplacian": {"u_xx": 1, "u_yy": 1}}),
            Term("boundary", self.domain.faces("x", "y"), ("u",), lambda x, d: d.u),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return (x.x * (1 - x.x) * x.y * (1 - x.y) * u.u,)

    def exact(self, x: Columns) -> Tensor:
        return torch.sin(self.a * math.pi * x.x) * torch.sin(self.b * math.pi * x.y)

    def _residual(self, x: Columns, d: Columns) -> Tensor:
        source = -(math.pi**2) * (self.a**2 + self.b**2) * self.exact(x)
        residual: Tensor = d.laplacian - source
        return residual
