"""The diffusion equation in one space dimension."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term


class Diffusion(PDE):
    """u_t = nu u_xx on [0, 1]^2 with u = 0 at the ends and u = sin(a pi x) at t = 0.

    Solution exp(-nu (a pi)^2 t) sin(a pi x), by separation of variables.

    Args:
        nu: diffusivity.
        a: number of half waves.
        hard_boundary: multiply the network by x (1 - x), so that the boundary term holds exactly.
    """

    def __init__(self, nu: Positive[float] = 0.05, a: Positive[int] = 2, hard_boundary: bool = False) -> None:
        self.nu = nu
        self.k = a * math.pi
        self.domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))
        self.built_in = frozenset({"boundary"} if hard_boundary else ())

    def terms(self) -> tuple[Term, ...]:
        start = (self.domain.face("t", "low"),)
        return (
            Term("residual", (self.domain,), (), lambda x, d: d.heat, operators={"heat": {"u_t": 1, "u_xx": -self.nu}}),
            Term("boundary", self.domain.faces("x"), ("u",), lambda x, d: d.u),
            Term("initial", start, ("u",), lambda x, d: d.u - torch.sin(self.k * x.x)),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return (x.x * (1 - x.x) * u.u,)

    def exact(self, x: Columns) -> Tensor:
        return torch.exp(-self.nu * self.k**2 * x.t) * torch.sin(self.k * x.x)
