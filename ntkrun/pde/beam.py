"""A vibrating Euler-Bernoulli beam."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term


class Beam(PDE):
    """u_tt + u_xxxx = f on [0, pi] x [0, 1], simply supported: u = u_xx = 0 at the ends.

    Released from rest at u = sin(a x) under the load f = (a^4 - w^2) sin(a x) cos(w t), w = c pi; solution
    u = sin(a x) cos(w t). With a = 1 and c = 4, the load is (1 - 16 pi^2) sin(x) cos(4 pi t) as in Kapoor, Wang,
    Nunez, Dollevoet, arXiv 2303.01055.

    Args:
        a: number of half waves along the beam.
        c: number of half oscillations in time.
        hard_boundary: multiply the network by x (pi - x), so that the boundary term holds exactly; the moments
            u_xx at the ends are still trained.
    """

    def __init__(self, a: Positive[int] = 1, c: Positive[float] = 4.0, hard_boundary: bool = False) -> None:
        self.a = a
        self.w = c * math.pi
        self.domain = Box.of(x=(0.0, math.pi), t=(0.0, 1.0))
        self.built_in = frozenset({"boundary"} if hard_boundary else ())

    def terms(self) -> tuple[Term, ...]:
        start = (self.domain.face("t", "low"),)
        ends = self.domain.faces("x")
        load = self.a**4 - self.w**2
        return (
            Term(
                "residual",
                (self.domain,),
                (),
                lambda x, d: d.beam - load * self.exact(x),
                operators={"beam": {"u_tt": 1, "u_xxxx": 1}},
            ),
            Term("boundary", ends, ("u",), lambda x, d: d.u),
            Term("moment", ends, ("u_xx",), lambda x, d: d.u_xx),
            Term("initial", start, ("u",), lambda x, d: d.u - torch.sin(self.a * x.x)),
            Term("initial_velocity", start, ("u_t",), lambda x, d: d.u_t),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return (x.x * (math.pi - x.x) * u.u,)

    def exact(self, x: Columns) -> Tensor:
        return torch.sin(self.a * x.x) * torch.cos(self.w * x.t)
