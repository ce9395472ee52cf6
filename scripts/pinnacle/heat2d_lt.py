"""Heat2d-LT of PINNacle: a reaction that is driven over a long time."""

import math
from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import dirichlet


class Heat2dLt(PDE):
    """u_t = 0.001 (u_xx + u_yy) + 5 sin(u^2) (1 + 2 sin(pi t / 4)) sin(4 pi x) sin(2 pi y) on [0, 1]^2 x [0, 100]."""

    def __init__(self):
        self.domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0), t=(0.0, 100.0))

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u", "u_t", "u_xx", "u_yy"), self.equation),
            dirichlet("sides", self.domain.boundary()),
            dirichlet("initial", self.domain.face("t", "low"), self.start),
        )

    def equation(self, x, d):
        strength = torch.sin(4 * math.pi * x.x) * torch.sin(2 * math.pi * x.y) * (1 + 2 * torch.sin(math.pi * x.t / 4))
        return d.u_t - 0.001 * (d.u_xx + d.u_yy) - 5 * torch.sin(d.u**2) * strength

    def start(self, x):
        return torch.sin(4 * math.pi * x.x) * torch.sin(3 * math.pi * x.y)

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xyt"}, file["values"])
