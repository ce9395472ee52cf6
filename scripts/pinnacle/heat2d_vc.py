"""Heat2d-VC of PINNacle: heat in a plate whose conductivity is a random field."""

import math
from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import dirichlet

WAVES = 20


class Heat2dVc(PDE):
    """u_t = a(x, y) (u_xx + u_yy) + 200 sin(pi x) sin(5 pi y) sin(pi t) on [0, 1]^2 x [0, 5], u = 0 at sides and start.

    log a is a Gaussian random field with waves of amplitude 1 / |k|^2, mean 0 and standard deviation 1.
    """

    def __init__(self, seed: int = 0):
        self.domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0), t=(0.0, 5.0))
        k = torch.arange(WAVES + 1, dtype=torch.float64).repeat(2)
        amplitude = 1 / (k[:, None] ** 2 + k**2)
        amplitude[amplitude.isinf()] = 0
        draw = torch.randn(amplitude.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.factors = draw * amplitude
        points = Box.of(x=(0.0, 1.0), y=(0.0, 1.0)).grid(65)
        self.factors /= self.log_conductivity(*points.unbind(1)).std()

    def log_conductivity(self, x, y):
        k = 2 * math.pi * torch.arange(WAVES + 1, dtype=x.dtype, device=x.device)
        along_x, along_y = (torch.cat([torch.cos(c[:, None] * k), torch.sin(c[:, None] * k)], 1) for c in (x, y))
        return (along_x @ self.factors.to(x) * along_y).sum(1)

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx", "u_yy"), self.equation),
            dirichlet("sides", self.domain.boundary()),
            dirichlet("initial", self.domain.face("t", "low")),
        )

    def equation(self, x, d):
        source = 200 * torch.sin(math.pi * x.x) * torch.sin(5 * math.pi * x.y) * torch.sin(math.pi * x.t)
        return d.u_t - torch.exp(self.log_conductivity(x.x, x.y)) * (d.u_xx + d.u_yy) - source

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xyt"}, file["values"])
