"""The Korteweg-de Vries equation."""

from __future__ import annotations

import math

import torch

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Reference, Term
from ntkrun.pde.references import load_reference

DISPERSION = 0.0025


class KortewegDeVries(PDE):
    """u_t + u u_x + b u_xxx = 0 on [-1, 1] x [0, 1], periodic in x, u = cos(pi x) at t = 0.

    The wave steepens and breaks up into solitons. Source: Zabusky, Kruskal, Phys. Rev. Lett. 15 (1965); with b = 0.0025
    Raissi, Perdikaris, Karniadakis, J. Comput. Phys. 378 (2019). The reference, for that b alone, is a Fourier method,
    on 201 x 101 points in x and t; absolute error below 1e-9.

    Args:
        b: dispersion.
    """

    def __init__(self, b: Positive[float] = DISPERSION) -> None:
        self.b = b
        self.domain = Box.of(x=(-1.0, 1.0), t=(0.0, 1.0))
        self.periods = {"x": 2.0}

    def terms(self) -> tuple[Term, ...]:
        return (
            Term(
                "residual",
                (self.domain,),
                ("u", "u_x"),
                lambda x, d: d.linear + d.u * d.u_x,
                operators={"linear": {"u_t": 1, "u_xxx": self.b}},
            ),
            Term("initial", (self.domain.face("t", "low"),), ("u",), lambda x, d: d.u - torch.cos(math.pi * x.x)),
            periodic(self, 3),
        )

    def reference(self) -> Reference | None:
        usual = math.isclose(self.b, DISPERSION)
        return load_reference("korteweg_de_vries", self.coordinates) if usual else None


def periodic(pde: PDE, order: int) -> Term:
    """The derivatives in x below an order are the same at both ends."""
    names = tuple("u" if k == 0 else "u_" + k * "x" for k in range(order))
    return Term(
        "periodic",
        (pde.domain.face("x", "low"),),
        names,
        lambda x, d: torch.stack([getattr(d, name) - getattr(d.partner, name) for name in names], dim=1),
        pde.periods,
    )
