"""A nonlinear Klein-Gordon equation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term


class KleinGordon(PDE):
    """u_tt - u_xx + u^3 = f on [0, 1]^2; solution u = x cos(w t) + (x t)^3, w = a pi, which gives f.

    Values are given at x = 0 and x = 1, and u = x, u_t = 0 at t = 0.
    Source: Wang, Teng, Perdikaris, arXiv 2001.04536 (a = 5 there).

    Args:
        a: number of half oscillations in time.
        hard_boundary: take x (cos(w t) + t^3) plus x (1 - x) times the network, so that the boundary term holds
            exactly.
    """

    def __init__(self, a: Positive[float] = 5.0, hard_boundary: bool = False) -> None:
        self.w = a * math.pi
        self.domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))
        self.built_in = frozenset({"boundary"} if hard_boundary else ())

    def terms(self) -> tuple[Term, ...]:
        start = (self.domain.face("t", "low"),)
        return (
            Term("residual", (self.domain,), ("u",), self._residual, operators={"wave": {"u_tt": 1, "u_xx": -1}}),
            Term("boundary", self.domain.faces("x"), ("u",), lambda x, d: d.u - self.exact(x)),
            Term("initial", start, ("u",), lambda x, d: d.u - x.x),
            Term("initial_velocity", start, ("u_t",), lambda x, d: d.u_t),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return (x.x * ((self.w * x.t).cos() + x.t**3 + (1 - x.x) * u.u),)

    def exact(self, x: Columns) -> Tensor:
        u: Tensor = x.x * torch.cos(self.w * x.t) + (x.x * x.t) ** 3
        return u

    def _residual(self, x: Columns, d: Columns) -> Tensor:
        u_tt = -(self.w**2) * x.x * torch.cos(self.w * x.t) + 6 * x.x**3 * x.t
        u_xx = 6 * x.x * x.t**3
        source = u_tt - u_xx + self.exact(x) ** 3
        residual: Tensor = d.wave + d.u**3 - source
        return residual
