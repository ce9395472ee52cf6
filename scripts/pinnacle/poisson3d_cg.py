"""Poisson3d-CG of PINNacle: a screened Poisson equation in a cube of two materials with four round holes."""

import math
from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import ball, block
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import neumann

BALLS = [((0.4, 0.3, 0.6), 0.2), ((0.6, 0.7, 0.6), 0.2), ((0.2, 0.8, 0.7), 0.1), ((0.6, 0.2, 0.3), 0.1)]


class Poisson3dCg(PDE):
    """-u_xx - u_yy - u_zz + k^2 u = f on [0, 1]^3 without four balls, k = 8 below z = 1/2, 10 above, u_n = 0."""

    def __init__(self):
        self.domain = block(x=(0.0, 1.0), y=(0.0, 1.0), z=(0.0, 1.0))
        for centre, radius in BALLS:
            self.domain -= ball(centre, radius, "balls")

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u", "u_xx", "u_yy", "u_zz"), self.equation),
            neumann("boundary", self.domain.boundary()),
        )

    def equation(self, x, d):
        screening = torch.where(x.z < 0.5, 64.0, 100.0)
        return d.u_xx + d.u_yy + d.u_zz - screening * d.u + self.source(x)

    def source(self, x):
        square = x.x**2 + x.y**2 + x.z**2
        sines = [torch.sin(m * math.pi * c) for m, c in ((1, x.x), (10, x.y), (5, x.z))]
        return 20 * torch.exp(sum(sines)) * (square - 1) / (square + 1) + 100 * sines[0] * sines[1] * sines[2]

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xyz"}, file["values"])
