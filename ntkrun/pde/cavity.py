"""Steady flow in a lid-driven cavity."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Reference, Term
from ntkrun.pde.references import load_reference

REYNOLDS = 100.0
TINY = 1e-30  # added to squared distances, so that the corners themselves have finite values


class Cavity(PDE):
    """Steady Navier-Stokes equations on [0, 1]^2 below a lid that moves at speed 1.

    u u_x + v u_y + p_x = (u_xx + u_yy) / Re, u v_x + v v_y + p_y = (v_xx + v_yy) / Re, u_x + v_y = 0; u = 1, v = 0 on
    the lid y = 1, u = v = 0 on the other walls, p = 0 in the corner (0, 0), since p is known up to a constant.

    The reference, for Re = 100 alone, holds u and v on 65 x 65 points from a spectral method that takes the singular
    flow at the upper corners out, where u jumps and is left open, as p is everywhere; absolute error below 1e-6. The
    tables of Ghia, Ghia, Shin, J. Comput. Phys. 48 (1982), for the centre lines are less accurate and differ from it
    by at most 0.0051 in u and 0.0093 in v; they are the arrays ``ghia_y``, ``ghia_u`` (at x = 1/2), ``ghia_x`` and
    ``ghia_v`` (at y = 1/2) of ``load_arrays("cavity")``.

    At the corners below the lid the velocity jumps and vorticity and pressure grow like 1/r. A smooth network cannot
    follow, and squared residuals grow beyond all bounds where it tries, so that they are least for a flow whose lid
    gathers speed gradually. With ``corner_flow`` the network only adds to the singular Stokes flow at either corner
    (Taylor 1962; taken out of a spectral method by Botella, Peyret, Computers & Fluids 27 (1998)):
    psi = b Y + theta (c X + d Y) in X, Y and theta, the distances to wall and lid and the angle from the lid, with
    c = 1 / (pi^2 / 4 - 1), d = c pi / 2, b = -d pi / 2, and p = -2 (c X + d Y) / (Re r^2). The momentum equations,
    whose other terms still grow like 1/r, are multiplied by the distance to the nearer corner (a smooth one).

    Args:
        reynolds: Reynolds number.
        corner_flow: add the singular flow at both upper corners to the network.
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "v", "p")

    def __init__(self, reynolds: Positive[float] = REYNOLDS, corner_flow: bool = False) -> None:
        self.reynolds = reynolds
        self.corner_flow = corner_flow
        self.built_in = None if corner_flow else frozenset()
        self.domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        lid = self.domain.face("y", "high")
        walls = (*self.domain.faces("x"), self.domain.face("y", "low"))
        corner = self.domain.face("x", "low").face("y", "low")
        laplacians = {f"laplacian_{field}": {f"{field}_xx": 1, f"{field}_yy": 1} for field in "uv"}
        first = tuple(f"{field}_{letter}" for field in self.fields for letter in "xy")
        return (
            Term("residual", (self.domain,), ("u", "v", *first), self._residual, operators=laplacians),
            Term("lid", (lid,), ("u", "v"), lambda x, d: torch.stack([d.u - 1, d.v], dim=1)),
            Term("walls", walls, ("u", "v"), lambda x, d: torch.stack([d.u, d.v], dim=1)),
            Term("pressure", (corner,), ("p",), lambda x, d: d.p),
        )

    def reference(self) -> Reference | None:
        return load_reference("cavity", self.coordinates) if math.isclose(self.reynolds, REYNOLDS) else None

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        left, right = self._corner(x.x, 1 - x.y), self._corner(1 - x.x, 1 - x.y)
        return u.u + left[0] + right[0], u.v + left[1] - right[1], u.p + left[2] - right[2]

    def _corner(self, X: Any, Y: Any) -> tuple[Any, Any, Any]:
        """u, v and p of the singular flow at the corner X = Y = 0, with X along the lid."""
        c = 1 / (math.pi**2 / 4 - 1)
        d = c * math.pi / 2
        square = X**2 + Y**2 + TINY
        theta = 2 * (Y * (X + square.sqrt()).reciprocal()).atan()
        ray = c * X + d * Y
        ray_over_square = ray * square.reciprocal()
        u = d * math.pi / 2 - d * theta - X * ray_over_square
        v = Y * ray_over_square - c * theta
        return u, v, (-2 / self.reynolds) * ray_over_square

    def _residual(self, x: Columns, d: Columns) -> Tensor:
        momentum_x = d.u * d.u_x + d.v * d.u_y + d.p_x - d.laplacian_u / self.reynolds
        momentum_y = d.u * d.v_x + d.v * d.v_y + d.p_y - d.laplacian_v / self.reynolds
        near = self._distance(x) if self.corner_flow else 1.0
        return torch.stack([near * momentum_x, near * momentum_y, d.u_x + d.v_y], dim=1)

    @staticmethod
    def _distance(x: Columns) -> Tensor:
        """To the nearer of both upper corners, up to a factor of sqrt(2) midway."""
        left, right = x.x**2 + (1 - x.y) ** 2, (1 - x.x) ** 2 + (1 - x.y) ** 2
        return torch.sqrt(left * right / (left + right))
