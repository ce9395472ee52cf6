"""Poisson2d-C of PINNacle: Laplace's equation on a square with four round holes."""

from pathlib import Path

import numpy as np

from ntkrun.geometry import disc, rectangle
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import dirichlet


class Poisson2dC(PDE):
    """u_xx + u_yy = 0 on [-1/2, 1/2]^2 without discs of radius 0.1; u = 1 at the sides, u = 0 at the discs."""

    def __init__(self):
        self.domain = rectangle(x=(-0.5, 0.5), y=(-0.5, 0.5))
        for centre in [(0.3, 0.3), (-0.3, 0.3), (0.3, -0.3), (-0.3, -0.3)]:
            self.domain -= disc(centre, 0.1, "discs")

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u_xx", "u_yy"), lambda x, d: d.u_xx + d.u_yy),
            dirichlet("sides", self.domain.boundary("left", "right", "bottom", "top"), 1.0),
            dirichlet("discs", self.domain.boundary("discs"), 0.0),
        )

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xy"}, file["values"])
