"""PInv of PINNacle: an unknown conductivity in the plane from 2,500 values of u with errors of 0.1."""

import math

import torch

from ntkrun.geometry import Box, Table
from ntkrun.pde import PDE, Term
from ntkrun.pde.conditions import dirichlet


class PInv(PDE):
    """-div(a grad u) = f on [0, 1]^2, a given on the boundary; u = sin(pi x) sin(pi y), 1/a = 1 + x^2 + y^2 + ...."""

    fields = ("u", "a")

    def __init__(self, noise: float = 0.1):
        self.domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0))
        points = self.domain.grid(50)
        errors = noise * torch.randn(len(points), generator=torch.Generator().manual_seed(0), dtype=points.dtype)
        values = self.exact(self.columns(points))[:, 0] + errors
        self.measurements = {"u": Table(("x", "y"), ("u",), torch.cat([points, values[:, None]], dim=1))}

    def terms(self):
        names = ("u_x", "u_y", "u_xx", "u_yy", "a", "a_x", "a_y")
        return (
            Term("residual", (self.domain,), names, self.equation),
            dirichlet("boundary", self.domain.boundary(), lambda x: self.exact(x)[:, 1], "a"),
        )

    def equation(self, x, d):
        return d.a * (d.u_xx + d.u_yy) + d.a_x * d.u_x + d.a_y * d.u_y + self.source(x)

    def source(self, x):
        u, a = self.exact(x).unbind(1)
        sines = torch.sin(math.pi * x.x), torch.sin(math.pi * x.y)
        cosines = torch.cos(math.pi * x.x), torch.cos(math.pi * x.y)
        slopes = (4 * x.x - 2) * cosines[0] * sines[1] + (4 * x.y - 2) * sines[0] * cosines[1]
        return 2 * math.pi**2 * a * u + math.pi * a**2 * slopes

    def exact(self, x):
        u = torch.sin(math.pi * x.x) * torch.sin(math.pi * x.y)
        a = 1 / (1 + x.x**2 + x.y**2 + (x.x - 1) ** 2 + (x.y - 1) ** 2)
        return torch.stack([u, a], dim=1)
