"""Advection at constant speed around a circle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term


class Advection(PDE):
    """u_t + c u_x = 0 on [0, 2 pi] x [0, 1], periodic in x, from u = sin(x); solution u = sin(x - c t).

    Source: Krishnapriyan, Gholami, Zhe, Kirby, Mahoney, arXiv 2109.01050, who find that networks trained in the
    plain way fail from about c = 20; the default is moderate.

    Args:
        c: speed.
    """

    def __init__(self, c: float = 10.0) -> None:
        self.c = c
        self.domain = Box.of(x=(0.0, 2 * math.pi), t=(0.0, 1.0))
        self.periods = {"x": 2 * math.pi}

    def terms(self) -> tuple[Term, ...]:
        start = (self.domain.face("t", "low"),)
        left = (self.domain.face("x", "low"),)
        return (
            Term(
                "residual",
                (self.domain,),
                (),
                lambda x, d: d.transport,
                operators={"transport": {"u_t": 1, "u_x": self.c}},
            ),
            Term("initial", start, ("u",), lambda x, d: d.u - torch.sin(x.x)),
            Term("periodic", left, ("u",), lambda x, d: d.u - d.partner.u, self.periods),
        )

    def exact(self, x: Columns) -> Tensor:
        return torch.sin(x.x - self.c * x.t)
