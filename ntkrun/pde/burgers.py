"""Burgers' equation."""

from __future__ import annotations

import math
from typing import Any

import torch

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Reference, Term
from ntkrun.pde.references import load_reference

NU = 0.01 / math.pi


class Burgers(PDE):
    """u_t + u u_x = nu u_xx on [-1, 1] x [0, 1] with u = 0 at the ends and u = -sin(pi x) at t = 0.

    A front steepens at x = 0; for nu = 0.01 / pi its slope is greatest, about -152, near t = 0.51.
    Source: Basdevant et al., Computers & Fluids 14 (1986); Raissi, Perdikaris, Karniadakis, J. Comput. Phys. 378
    (2019). The reference, for that nu alone, is the Cole-Hopf transformation by quadrature, on 201 x 101 points in x
    and t; absolute error below 1e-9.

    Args:
        nu: viscosity.
        hard_boundary: multiply the network by 1 - x^2, so that the boundary term holds exactly.
    """

    def __init__(self, nu: Positive[float] = NU, hard_boundary: bool = False) -> None:
        self.nu = nu
        self.domain = Box.of(x=(-1.0, 1.0), t=(0.0, 1.0))
        self.built_in = frozenset({"boundary"} if hard_boundary else ())

    def terms(self) -> tuple[Term, ...]:
        start = (self.domain.face("t", "low"),)
        return (
            Term(
                "residual",
                (self.domain,),
                ("u", "u_x"),
                lambda x, d: d.heat + d.u * d.u_x,
                operators={"heat": {"u_t": 1, "u_xx": -self.nu}},
            ),
            Term("boundary", self.domain.faces("x"), ("u",), lambda x, d: d.u),
            Term("initial", start, ("u",), lambda x, d: d.u + torch.sin(math.pi * x.x)),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return ((1 - x.x**2) * u.u,)

    def reference(self) -> Reference | None:
        return load_reference("burgers", self.coordinates) if math.isclose(self.nu, NU) else None
