"""Poisson2d-CG of PINNacle: the linear Poisson-Boltzmann equation on a square with four round holes."""

import math
from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import disc, rectangle
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import dirichlet

DISCS = [((0.5, 0.5), 0.2), ((0.4, -0.4), 0.4), ((-0.2, -0.7), 0.1), ((-0.6, 0.5), 0.3)]


class Poisson2dCg(PDE):
    """-u_xx - u_yy + 64 u = f on [-1, 1]^2 without four discs; u = 0.2 at the sides, u = 1 at the discs."""

    def __init__(self):
        self.domain = rectangle(x=(-1.0, 1.0), y=(-1.0, 1.0))
        for centre, radius in DISCS:
            self.domain -= disc(centre, radius, "discs")

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u", "u_xx", "u_yy"), self.equation),
            dirichlet("sides", self.domain.boundary("left", "right", "bottom", "top"), 0.2),
            dirichlet("discs", self.domain.boundary("discs"), 1.0),
        )

    def equation(self, x, d):
        sines = torch.sin(math.pi * x.x) * torch.sin(4 * math.pi * x.y)
        return d.u_xx + d.u_yy - 64 * d.u + 10 * (17 + x.x**2 + x.y**2) * sines

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xy"}, file["values"])
