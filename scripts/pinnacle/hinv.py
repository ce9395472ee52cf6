"""HInv of PINNacle: an unknown conductivity in the plane from 2,500 values of u(x, y, t) with errors of 0.1."""

import math

import torch

from ntkrun.geometry import Box, Sampler, Table
from ntkrun.pde import PDE, Term
from ntkrun.pde.conditions import dirichlet


class HInv(PDE):
    """u_t - div(a grad u) = f on [-1, 1]^2 x [0, 1], a given on the boundary; u = exp(-t) s, a = 2 + s with sines s."""

    fields = ("u", "a")

    def __init__(self, noise: float = 0.1):
        self.domain = Box.of(x=(-1.0, 1.0), y=(-1.0, 1.0), t=(0.0, 1.0))
        self.depends = {"a": ("x", "y")}
        points = Sampler((self.domain,), 2500, "uniform", 0).draw()
        errors = noise * torch.randn(len(points), generator=torch.Generator().manual_seed(0), dtype=points.dtype)
        values = self.exact(self.columns(points))[:, 0] + errors
        self.measurements = {"u": Table(("x", "y", "t"), ("u",), torch.cat([points, values[:, None]], dim=1))}

    def terms(self):
        names = ("u_t", "u_x", "u_y", "u_xx", "u_yy", "a", "a_x", "a_y")
        return (
            Term("residual", (self.domain,), names, self.equation),
            dirichlet("boundary", self.domain.boundary(), lambda x: self.exact(x)[:, 1], "a"),
        )

    def equation(self, x, d):
        return d.u_t - d.a * (d.u_xx + d.u_yy) - d.a_x * d.u_x - d.a_y * d.u_y - self.source(x)

    def source(self, x):
        pi, s, c = math.pi, torch.sin, torch.cos
        sines = s(pi * x.x) * s(pi * x.y)
        slopes = c(pi * x.x) ** 2 * s(pi * x.y) ** 2 + s(pi * x.x) ** 2 * c(pi * x.y) ** 2
        return torch.exp(-x.t) * (-sines + 2 * pi**2 * (2 + sines) * sines - pi**2 * slopes)

    def exact(self, x):
        sines = torch.sin(math.pi * x.x) * torch.sin(math.pi * x.y)
        return torch.stack([torch.exp(-x.t) * sines, 2 + sines], dim=1)
