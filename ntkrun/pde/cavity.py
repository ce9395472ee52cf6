"""Steady flow in a lid-driven cavity."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Reference, Term
from ntkrun.pde.references import load_reference

REYNOLDS = 100.0


class Cavity(PDE):
    """Steady Navier-Stokes equations on [0, 1]^2 below a lid that moves at speed 1.

    u u_x + v u_y + p_x = (u_xx + u_yy) / Re, u v_x + v v_y + p_y = (v_xx + v_yy) / Re, u_x + v_y = 0; u = 1, v = 0 on
    the lid y = 1, u = v = 0 on the other walls, p = 0 in the corner (0, 0), since p is known up to a constant.

    The reference, for Re = 100 alone, holds u and v on 65 x 65 points from a spectral method; absolute error below
    5e-4 everywhere and 1e-4 from a distance of 0.1 to the upper corners, where u jumps and is left open, as p is
    everywhere. The tables of Ghia, Ghia, Shin, J. Comput. Phys. 48 (1982), for the centre lines, which are less
    accurate, differ from it by at most 0.0051 in u and 0.0093 in v; they are the arrays ``ghia_y``, ``ghia_u``
    (at x = 1/2), ``ghia_x`` and ``ghia_v`` (at y = 1/2) of ``load_arrays("cavity")``.

    Args:
        reynolds: Reynolds number.
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "v", "p")

    def __init__(self, reynolds: Positive[float] = REYNOLDS) -> None:
        self.reynolds = reynolds
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

    def _residual(self, x: Columns, d: Columns) -> Tensor:
        momentum_x = d.u * d.u_x + d.v * d.u_y + d.p_x - d.laplacian_u / self.reynolds
        momentum_y = d.u * d.v_x + d.v * d.v_y + d.p_y - d.laplacian_v / self.reynolds
        return torch.stack([momentum_x, momentum_y, d.u_x + d.v_y], dim=1)
