"""The wave equation in one space dimension."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term


class Wave(PDE):
    """u_tt = c^2 u_xx on [0, 1]^2 with u = 0 at the ends, released from rest.

    Initial state sin(pi x) + a sin(4 pi x); solution
    sin(pi x) cos(c pi t) + a sin(4 pi x) cos(4 c pi t).
    Source: Wang, Yu, Perdikaris, arXiv 2007.14527, section 7.3 (a = 1/2, c = 2 there).

    Args:
        a: amplitude of the fourth mode.
        c: wave speed.
        hard_boundary: multiply the network by x (1 - x), so that the boundary term holds exactly.
    """

    def __init__(self, a: float = 0.5, c: Positive[float] = 2.0, hard_boundary: bool = False) -> None:
        self.a = a
        self.c = c
        self.domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))
        self.built_in = frozenset({"boundary"} if hard_boundary else ())

    def terms(self) -> tuple[Term, ...]:
        start = (self.domain.face("t", "low"),)
        return (
            Term(
                "residual",
                (self.domain,),
                (),
                lambda x, d: d.wave,
                operators={"wave": {"u_tt": 1, "u_xx": -(self.c**2)}},
            ),
            Term("boundary", self.domain.faces("x"), ("u",), lambda x, d: d.u),
            Term("initial", start, ("u",), lambda x, d: d.u - self._mode(1, x) - self.a * self._mode(4, x)),
            Term("initial_velocity", start, ("u_t",), lambda x, d: d.u_t),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return (x.x * (1 - x.x) * u.u,)

    def exact(self, x: Columns) -> Tensor:
        return self._mode(1, x) + self.a * self._mode(4, x)

    def _mode(self, k: int, x: Columns) -> Tensor:
        return torch.sin(k * math.pi * x.x) * torch.cos(k * self.c * math.pi * x.t)
