"""The Allen-Cahn equation."""

from __future__ import annotations

import math
from typing import Any

import torch

from ntkrun.common.types import NonNegative, Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Reference, Term
from ntkrun.pde.conditions import periodic
from ntkrun.pde.references import load_reference

NU = 1e-4
REACTION = 5.0
FIRST_TIME = 1e-10
"""Added to the time of the kink, so that its derivatives are finite at t = 0; it is then rounded over 1e-7."""


class AllenCahn(PDE):
    """u_t = nu u_xx - s (u^3 - u) on [-1, 1] x [0, 1], periodic in x, u = x^2 cos(pi x) at t = 0.

    The initial state has a kink at x = 1, continued periodically, which diffuses at once. Source: Raissi,
    Perdikaris, Karniadakis, J. Comput. Phys. 378 (2019), with nu = 1e-4 and s = 5. The reference, for these values
    alone, is a Fourier method, on 201 x 101 points in x and t; absolute error below 1e-7.

    A smooth network cannot follow the kink, and nearly all of its error is there. With ``kink`` it only adds to
    2 exp(-2 s t) (S(x) + L(1 - x, t) + L(1 + x, t)), where y is the distance to x = 1:

    - S + L = y + O(y^3) + L is, by L(y, t) = 2 sqrt(nu t / pi) exp(-y^2 / (4 nu t)) - y erfc(y / sqrt(4 nu t)), the
      flow of heat from |y|; the factor exp(-2 s t) is the reaction's next to u = -1, the state at the kink;
    - S(x) = (2 / pi) c (1 - (11 / 6) c^2), c = cos(pi x / 2), is smooth elsewhere, periodic, and at t = 0 2 S has the
      odd powers |y| and |y|^3 of x^2 cos(pi x) = -(1 + y^2) cos(pi y) + 2 |y| cos(pi y).

    Args:
        nu: diffusivity.
        s: rate of the reaction.
        kink: add the kink, as it diffuses, to the network.
    """

    def __init__(self, nu: Positive[float] = NU, s: NonNegative[float] = REACTION, kink: bool = False) -> None:
        self.nu = nu
        self.s = s
        self.kink = kink
        self.built_in = None if kink else frozenset()
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

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        c = (math.pi / 2 * x.x).cos()
        smooth = 2 / math.pi * c * (1 - 11 / 6 * c**2)
        return (u.u + 2 * (-2 * self.s * x.t).exp() * (smooth + self._layer(1 - x.x, x.t) + self._layer(1 + x.x, x.t)),)

    def _layer(self, y: Any, t: Any) -> Any:
        """By how much the flow of heat from |y| differs from it, in y >= 0."""
        width = (4 * self.nu * (t + FIRST_TIME)).sqrt()
        z = y * width.reciprocal()
        return math.pi**-0.5 * width * (-(z**2)).exp() - y * (1 - z.erf())
