"""Heat2d-MS of PINNacle: heat with conductivities and wavelengths of two sizes."""

import math

import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term
from ntkrun.pde.conditions import dirichlet


class Heat2dMs(PDE):
    """u_t = u_xx / (500 pi)^2 + u_yy / pi^2 on [0, 1]^2 x [0, 5] from sin(20 pi x) sin(pi y), u = 0 at the sides."""

    def __init__(self):
        self.domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0), t=(0.0, 5.0))

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx", "u_yy"), self.equation),
            dirichlet("boundary", self.domain.boundary()),
            dirichlet("initial", self.domain.face("t", "low"), self.exact),
        )

    def features(self, x):
        return torch.sin(20 * math.pi * x.x), torch.cos(20 * math.pi * x.x)

    def equation(self, x, d):
        return d.u_t - d.u_xx / (500 * math.pi) ** 2 - d.u_yy / math.pi**2

    def exact(self, x):
        start = torch.sin(20 * math.pi * x.x) * torch.sin(math.pi * x.y)
        return torch.exp(-(1 + (20 / 500) ** 2) * x.t) * start
