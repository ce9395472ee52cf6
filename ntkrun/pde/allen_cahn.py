"""The Allen-Cahn equation."""

from __future__ import annotations

import math

import torch

from ntkrun.common.types import NonNegative, Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Reference, Term
from ntkrun.pde.conditions import periodic
from ntkrun.pde.references import load_reference

NU = 1e-4
REACTION = 5.0


class AllenCahn(PDE):
    """u_t = nu u_xx - s (u^3 - u) on [-1, 1] x [0, 1], periodic in x, u = x^2 cos(pi x) at t = 0.

    The initial state has a kink at x = 1, continued periodically, which diffuses at once. Source: Raissi,
    Perdikaris, Karniadakis, J. Comput. Phys. 378 (2019), with nu = 1e-4 and s = 5. The reference, for these values
    alone, is a Fourier method, on 201 x 101 points in x and t; absolute error below 1e-7.

    Args:
        nu: diffusivity.
        s: rate of the reaction.
    """

    def __init__(self, nu: Positive[float] = NU, s: NonNegative[float] = REACTION) -> None:
        self.nu = nu
        self.s = s
        self.domain = Box.of(x=(-1.0, 1.0), t=(0.0, 1.0))
        self.periods = {"x": 2.0}

    def terms(self) -> tuple[Term, ...]:
        start = (self.domain.face("t", "low"),)
        return (
            Term(
                "residual",
                (self.domain,),
                ("u",),
                lambda x, d: d.heat + self.s * (d.u**3 - d.u),
                operators={"heat": {"u_t": 1, "u_xx": -self.nu}},
            ),
            Term("initial", start, ("u",), lambda x, d: d.u - x.x**2 * torch.cos(math.pi * x.x)),
            periodic("periodic", self.domain, "x", order=2),
        )

    def reference(self) -> Reference | None:
        usual = math.isclose(self.nu, NU) and math.isclose(self.s, REACTION)
        return load_reference("allen_cahn", self.coordinates) if usual else None
