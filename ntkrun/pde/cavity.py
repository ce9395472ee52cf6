"""Steady flow in a lid-driven cavity."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Reference, Term
from ntkrun.pde.references import load_reference

REYNOLDS = 100.0
TINY = 1e-30  # added to squared distances, so that the corners themselves have finite values


class _Stokes(NamedTuple):
    """Factors of the Stokes flow below a moving lid, see ``Cavity``."""

    b: float
    c: float
    d: float


class _Convection(NamedTuple):
    """g = cosine(theta) cos(2 theta) + sine(theta) sin(2 theta) + slope theta + constant, and C, see ``Cavity``.

    Attributes:
        cosine, sine: coefficients of 1, theta and theta^2.
        slope, constant: coefficients of theta and 1.
        pressure: C.
    """

    cosine: tuple[float, float, float]
    sine: tuple[float, float, float]
    slope: float
    constant: float
    pressure: float


def _convection(b: float, c: float, d: float) -> _Convection:
    """Coefficients of g: a particular solution in theta^2 and theta, and what meets the conditions at 0 and pi / 2.

    But for a constant, f (f + D^2 f) is the real part of (theta (2 c d - i (d^2 - c^2)) + b c - i b d) exp(2 i theta).
    """
    second = -(2 * c * d - 1j * (d**2 - c**2)) / 16
    first = (12j * second - b * c + 1j * b * d) / 8
    a1, a2, b1, b2 = first.real, second.real, -first.imag, -second.imag
    end = math.pi / 2
    b0 = -(a1 + (a2 + b1) * end + b2 * end**2) / 2
    slope = -a1 - 2 * b0
    a0 = (slope - a1 - a2 * end) * end / 2
    return _Convection((a0, a1, a2), (b0, b1, b2), slope, -a0, 12 * (b2 - a1) - 8 * b0)


def _stokes() -> _Stokes:
    c = 1 / (math.pi**2 / 4 - 1)
    d = c * math.pi / 2
    return _Stokes(-d * math.pi / 2, c, d)


STOKES = _stokes()
CONVECTION = _convection(*STOKES)


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
    gathers speed gradually. With ``corner_flow`` the network only adds to the singular flow at either corner: the
    Stokes flow (Taylor 1962) and what its own convection adds, which Botella, Peyret, Computers & Fluids 27 (1998),
    take out of a spectral method. In X and Y, the distances to wall and lid, r, and theta, the angle from the lid, its
    stream function is r f(theta) + Re r^2 g(theta) and its pressure -2 (c X + d Y) / (Re r^2) - C log r:

    - r f = b Y + theta (c X + d Y) with c = 1 / (pi^2 / 4 - 1), d = c pi / 2, b = -d pi / 2;
    - D^4 g + 4 D^2 g = D (f (f + D^2 f)), D = d/dtheta, with g = D g = 0 on wall and lid; C is the constant
      D^3 g + 4 D g - f (f + D^2 f).

    The momentum equations, whose other terms still grow like 1/r, are multiplied by the distance to the nearer corner
    (a smooth one).

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
        left, right = self._corner(x.x, 1 - x.y, 1), self._corner(1 - x.x, 1 - x.y, -1)
        return u.u + left[0] + right[0], u.v + left[1] + right[1], u.p + left[2] + right[2]

    def _corner(self, X: Any, Y: Any, sign: int) -> tuple[Any, Any, Any]:
        """u, v and p of the singular flow at the corner X = Y = 0, with X along the lid, which moves in direction sign.

        A lid that moves towards the corner is the mirror image of one that leaves it backwards: what is linear in the
        lid's speed changes its sign, what is quadratic does not.
        """
        c, d, g = STOKES.c, STOKES.d, CONVECTION
        square = X**2 + Y**2 + TINY
        inverse = square.reciprocal()
        theta = 2 * (Y * (X + square.sqrt()).reciprocal()).atan()
        ray_over_square = (c * X + d * Y) * inverse
        u = d * math.pi / 2 - d * theta - X * ray_over_square
        v = Y * ray_over_square - c * theta
        p = (-2 / self.reynolds) * ray_over_square

        cosine, sine = (X**2 - Y**2) * inverse, 2 * X * Y * inverse  # of 2 theta
        even, odd = (k[0] + theta * (k[1] + k[2] * theta) for k in (g.cosine, g.sine))
        even1, odd1 = (k[1] + 2 * k[2] * theta for k in (g.cosine, g.sine))
        angular = even * cosine + odd * sine + g.slope * theta + g.constant
        angular1 = (even1 + 2 * odd) * cosine + (odd1 - 2 * even) * sine + g.slope
        return (
            u - sign * self.reynolds * (2 * Y * angular + X * angular1),
            sign * v + self.reynolds * (Y * angular1 - 2 * X * angular),
            sign * p - g.pressure / 2 * square.log(),
        )

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
