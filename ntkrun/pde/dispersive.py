"""Equations with derivatives of third and fourth order, periodic in space."""

from __future__ import annotations

import math

import torch

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Reference, Term
from ntkrun.pde.conditions import periodic
from ntkrun.pde.references import load_reference

DISPERSION = 0.0025
SCALE = 100.0  # of time in the usual form of the Kuramoto-Sivashinsky equation, of length 16
KS_USUAL = (SCALE / 16, SCALE / 16**2, SCALE / 16**4, 0.1)


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
            periodic("periodic", self.domain, "x", order=3),
        )

    def reference(self) -> Reference | None:
        usual = math.isclose(self.b, DISPERSION)
        return load_reference("korteweg_de_vries", self.coordinates) if usual else None


class KuramotoSivashinsky(PDE):
    """u_t + a u u_x + b u_xx + c u_xxxx = 0 on [0, 2 pi] x [0, end], periodic in x, from cos(x) (1 + sin(x)).

    Long waves grow, short ones are damped, and chaos follows; the interval ends before it. Source: Kassam, Trefethen,
    SIAM J. Sci. Comput. 26 (2005), with lengths in units of 16 and times in units of 100, a = 100 / 16,
    b = 100 / 16^2, c = 100 / 16^4, as in Wang, Sankaran, Perdikaris, arXiv 2203.07404. The reference, for these numbers
    alone, is a Fourier method, on 257 x 101 points in x and t; absolute error below 1e-8.

    Args:
        a: strength of the steepening.
        b: rate of growth.
        c: rate of damping.
        end: the last time.
    """

    def __init__(
        self,
        a: Positive[float] = SCALE / 16,
        b: Positive[float] = SCALE / 16**2,
        c: Positive[float] = SCALE / 16**4,
        end: Positive[float] = 0.1,
    ) -> None:
        self.a, self.b, self.c, self.end = a, b, c, end
        self.domain = Box.of(x=(0.0, 2 * math.pi), t=(0.0, end))
        self.periods = {"x": 2 * math.pi}

    def terms(self) -> tuple[Term, ...]:
        return (
            Term(
                "residual",
                (self.domain,),
                ("u", "u_x"),
                lambda x, d: d.linear + self.a * d.u * d.u_x,
                operators={"linear": {"u_t": 1, "u_xx": self.b, "u_xxxx": self.c}},
            ),
            Term(
                "initial",
                (self.domain.face("t", "low"),),
                ("u",),
                lambda x, d: d.u - torch.cos(x.x) * (1 + torch.sin(x.x)),
            ),
            periodic("periodic", self.domain, "x", order=4),
        )

    def reference(self) -> Reference | None:
        usual = all(map(math.isclose, (self.a, self.b, self.c, self.end), KS_USUAL))
        return load_reference("kuramoto_sivashinsky", self.coordinates) if usual else None
