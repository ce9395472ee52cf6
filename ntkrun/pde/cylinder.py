"""Steady flow past a cylinder in a channel."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ntkrun.common.types import Fraction
from ntkrun.geometry import Region, disc, rectangle
from ntkrun.pde.base import PDE, Columns, Reference, Term
from ntkrun.pde.references import load_reference

LENGTH, HEIGHT = 2.2, 0.41
MIDDLE, RADIUS = (0.2, 0.2), 0.05
VISCOSITY = 1e-3
PEAK, MEAN = 0.3, 0.2  # speed of the inflow
RISE = 0.05  # distance over which a hard constraint goes over to the free flow
RINGS = (0.1, 0.06)  # outer radii of those that hold further points


class Cylinder(PDE):
    """Steady Navier-Stokes equations at Re = 20 in [0, 2.2] x [0, 0.41] without a disc of radius 0.05 at (0.2, 0.2).

    u u_x + v u_y + p_x = nu (u_xx + u_yy), u v_x + v v_y + p_y = nu (v_xx + v_yy), u_x + v_y = 0 with nu = 1e-3;
    u = 1.2 y (0.41 - y) / 0.41^2, v = 0 at the inlet, u = v = 0 at the walls and the cylinder, and nothing is done at
    the outlet: nu u_x = p, nu v_x = 0. This is the benchmark 2D-1 of Schaefer, Turek, Notes Numer. Fluid Mech. 52
    (1996), with coefficients of drag 5.57953 and lift 0.01062 and a pressure difference of 0.11752 across the cylinder
    (John, Matthies, Int. J. Numer. Meth. Fluids 37 (2001)).

    Equations are divided by sizes of their terms, momentum by 0.4 and continuity by 2. The reference, on 111 x 42
    points, is by finite elements (``scripts/reference_shapes.py``), whose coefficients are those to 4e-6 and 6e-4 and
    pressure difference to 6e-4.

    Args:
        hard_boundary: let the network be a part of u = u_in(y) s (1 + u'), v = u_in(y) s v', with s rising from 0 at
            the cylinder to 1 and primes vanishing at the inlet: velocities there are right, at the inlet to 1e-7.
        inversion: let the network also read 1.5 R (x - m) / |x - m|^2, the inversion of the plane in the cylinder: what
            is small in the channel fills a disc there.
        near: the part of the residual's points that is drawn beside the cylinder, half of it in each of two rings, 0.05
            and 0.01 wide. Of uniform ones 1.5 % lie in the narrow ring, so that a network that reads the inversion
            fits these alone.
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "v", "p")

    def __init__(self, hard_boundary: bool = False, inversion: bool = False, near: Fraction = 0.0) -> None:
        self.inversion = inversion
        self.near = near
        self.built_in = frozenset({"inlet", "walls", "cylinder"} if hard_boundary else ())
        self.domain = rectangle(x=(0.0, LENGTH), y=(0.0, HEIGHT)) - disc(MIDDLE, RADIUS, "cylinder")

    def terms(self) -> tuple[Term, ...]:
        laplacians = {f"laplacian_{field}": {f"{field}_xx": 1, f"{field}_yy": 1} for field in "uv"}
        first = tuple(f"{field}_{letter}" for field in self.fields for letter in "xy")
        part = self.domain.boundary
        places: tuple[Region, ...] = (self.domain,)
        shares = None
        if self.near:
            places += tuple(disc(MIDDLE, radius) - disc(MIDDLE, RADIUS) for radius in RINGS)
            shares = (1 - self.near, self.near / 2, self.near / 2)
        return (
            Term("residual", places, ("u", "v", *first), self._residual, operators=laplacians, shares=shares),
            Term("inlet", part("left"), ("u", "v"), lambda x, d: torch.stack([d.u - inflow(x.y), d.v], dim=1)),
            Term("walls", part("bottom", "top"), ("u", "v"), lambda x, d: torch.stack([d.u, d.v], dim=1)),
            Term("cylinder", part("cylinder"), ("u", "v"), lambda x, d: torch.stack([d.u, d.v], dim=1)),
            Term("outlet", part("right"), ("u_x", "v_x", "p"), self._nothing_done),
        )

    def reference(self) -> Reference | None:
        return load_reference("cylinder", self.coordinates)

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        square = (x.x - MIDDLE[0]) ** 2 + (x.y - MIDDLE[1]) ** 2
        speed = inflow(x.y) * (1 - ((square - RADIUS**2) * (-1 / RISE**2)).exp())
        away = (x.x * (1 / MIDDLE[0])).tanh()
        return speed * (1 + away * u.u), speed * away * u.v, u.p * MEAN**2

    def features(self, x: Columns) -> tuple[Any, ...]:
        if not self.inversion:
            return ()
        along, across = x.x - MIDDLE[0], x.y - MIDDLE[1]
        factor = (along**2 + across**2).reciprocal() * (1.5 * RADIUS)
        return along * factor, across * factor

    @staticmethod
    def _residual(x: Columns, d: Columns) -> Tensor:
        along_x = d.u * d.u_x + d.v * d.u_y + d.p_x - VISCOSITY * d.laplacian_u
        along_y = d.u * d.v_x + d.v * d.v_y + d.p_y - VISCOSITY * d.laplacian_v
        diameter = 2 * RADIUS
        momentum, continuity = diameter / MEAN**2, diameter / MEAN
        return torch.stack([momentum * along_x, momentum * along_y, continuity * (d.u_x + d.v_y)], dim=1)

    @staticmethod
    def _nothing_done(x: Columns, d: Columns) -> Tensor:
        return torch.stack([VISCOSITY * d.u_x - d.p, VISCOSITY * d.v_x], dim=1) / MEAN**2


def inflow(y: Any) -> Any:
    """The parabola of the inlet."""
    return y * (HEIGHT - y) * (4 * PEAK / HEIGHT**2)
