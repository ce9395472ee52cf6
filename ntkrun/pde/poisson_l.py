"""Poisson's equation on an L shape."""

from __future__ import annotations

import math
from typing import Any

from ntkrun.geometry import rectangle
from ntkrun.pde.base import PDE, Coefficient, Columns, Reference, Term
from ntkrun.pde.references import load_reference

INTENSITY = 0.401931  # of the singular function in the solution, by scripts/reference_shapes.py
TINY = 1e-30  # added to squared distances, so that the corner itself has finite values


class PoissonL(PDE):
    """u_xx + u_yy = -1 on [-1, 1]^2 without the quadrant x > 0, y > 0; u = 0 on the boundary.

    At the inner corner the solution behaves like c s with s = r^(2/3) cos(2 phi / 3), r the distance and phi the angle
    from the line that halves the shape: its slope is infinite there, and a smooth network follows slowly. With
    ``corner`` the network only adds to c s, whose stress intensity c is an unknown coefficient; s is harmonic, so that
    the equation stays as it is (Strang, Fix, An Analysis of the Finite Element Method, 1973, section 8.2).

    The reference, on 81 x 81 points, is the real part of a rational function with poles at the corners; its error is
    below 1e-8 by the maximum principle.

    Args:
        corner: add the singular function at the inner corner to the network.
    """

    def __init__(self, corner: bool = False) -> None:
        self.built_in = None if corner else frozenset()
        self.domain = rectangle(x=(-1.0, 1.0), y=(-1.0, 1.0)) - rectangle(x=(0.0, 1.0), y=(0.0, 1.0))
        self.coefficients = (Coefficient(name="c", start=0.0, true=INTENSITY),) if corner else ()

    def terms(self) -> tuple[Term, ...]:
        operators = {"laplacian": {"u_xx": 1, "u_yy": 1}}
        return (
            Term("residual", (self.domain,), (), lambda x, d: d.laplacian + 1, operators=operators),
            Term("boundary", self.domain.boundary(), ("u",), lambda x, d: d.u),
        )

    def reference(self) -> Reference | None:
        return load_reference("poisson_l", self.coordinates)

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        along, across = (x.x + x.y) * -math.sqrt(0.5), (x.x - x.y) * math.sqrt(0.5)
        square = along**2 + across**2 + TINY
        half = (across * (along + square.sqrt()).reciprocal()).atan()  # of phi; without a jump outside of the notch
        return (u.u + u.c * square ** (1 / 3) * (half * (4 / 3)).cos(),)
