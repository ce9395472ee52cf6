"""Laplace's equation on a disc with a hole."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import disc
from ntkrun.pde.base import PDE, Columns, ProblemError, Term


class LaplaceHole(PDE):
    """u_xx + u_yy = 0 on the unit disc without a disc of the given centre (c, 0) and radius; u = 1 at the hole.

    At the outer edge u = 0, or, with ``flux``, the normal derivative is given. Solved by u = log |w| / log R with
    w = (z - a) / (1 - a z), z = x + i y, which maps the domain onto the ring R < |w| < 1; a and 1 / a are mirror images
    of each other at both circles.

    Args:
        centre: of the hole, its abscissa c.
        radius: of the hole.
        flux: give the normal derivative at the outer edge instead of the value.

    Raises:
        ProblemError: the hole does not lie inside of the unit disc.
    """

    def __init__(self, centre: float = 0.3, radius: Positive[float] = 0.25, flux: bool = False) -> None:
        if abs(centre) + radius >= 1:
            raise ProblemError(f"a hole with centre={centre} and radius={radius} does not lie inside of the unit disc")
        self.flux = flux
        # The root of c a^2 - (1 + c^2 - r^2) a + c = 0 inside of the disc, without cancellation.
        middle = 1 + centre**2 - radius**2
        self.a = 2 * centre / (middle + math.sqrt(middle**2 - 4 * centre**2))
        edge = centre + radius
        self.log_ring = math.log(abs((edge - self.a) / (1 - self.a * edge)))
        self.domain = disc((0.0, 0.0), 1.0, "outer") - disc((centre, 0.0), radius, "hole")

    def terms(self) -> tuple[Term, ...]:
        hole, outer = self.domain.boundary("hole"), self.domain.boundary("outer")
        edge = (
            Term("outer", outer, ("u_x", "u_y"), lambda x, d: x.nx * d.u_x + x.ny * d.u_y - self.normal(x))
            if self.flux
            else Term("outer", outer, ("u",), lambda x, d: d.u)
        )
        return (
            Term(
                "residual",
                (self.domain,),
                (),
                lambda x, d: d.laplacian,
                operators={"laplacian": {"u_xx": 1, "u_yy": 1}},
            ),
            Term("hole", hole, ("u",), lambda x, d: d.u - 1),
            edge,
        )

    def exact(self, x: Columns) -> Tensor:
        above = (x.x - self.a) ** 2 + x.y**2
        below = (1 - self.a * x.x) ** 2 + (self.a * x.y) ** 2
        return torch.log(above / below) / (2 * self.log_ring)

    def normal(self, x: Columns) -> Tensor:
        """The solution's derivative along the outward normal of the unit circle: |w'| / log R."""
        squared: Tensor = (1 - self.a * x.x) ** 2 + (self.a * x.y) ** 2
        return (1 - self.a**2) / squared / self.log_ring
