"""Burgers1d-C of PINNacle: a sine that steepens to a viscous shock."""

import math

import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term
from ntkrun.pde.conditions import dirichlet

NU = 0.01 / math.pi


class Burgers1dC(PDE):
    """u_t + u u_x = 0.01/pi u_xx on [-1, 1] x [0, 1], u = -sin(pi x) at first and 0 at the ends."""

    def __init__(self):
        self.domain = Box.of(x=(-1.0, 1.0), t=(0.0, 1.0))

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u", "u_x", "u_t", "u_xx"), self.equation),
            dirichlet("boundary", self.domain.faces("x")),
            dirichlet("initial", self.domain.face("t", "low"), lambda x: -torch.sin(math.pi * x.x)),
        )

    def equation(self, x, d):
        return d.u_t + d.u * d.u_x - NU * d.u_xx

    def exact(self, x):
        """The Cole-Hopf transformation, by the trapezoidal rule, which converges exponentially here."""
        s = torch.linspace(-16.0, 16.0, 801, dtype=torch.float64)
        y = x.x[:, None] - 2 * torch.sqrt(NU * x.t)[:, None] * s
        weights = torch.softmax(-torch.cos(math.pi * y) / (2 * math.pi * NU) - s**2, dim=1)
        return -(weights * torch.sin(math.pi * y)).sum(1)
