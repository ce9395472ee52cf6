"""Wave1d-C of PINNacle: a string with two modes."""

import math

import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term
from ntkrun.pde.conditions import dirichlet


class Wave1dC(PDE):
    """u_tt = 4 u_xx on [0, 1]^2, u = 0 at the ends, released from sin(pi x) + sin(4 pi x) / 2."""

    def __init__(self):
        self.domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))

    def terms(self):
        start = self.domain.face("t", "low")
        return (
            Term("residual", (self.domain,), ("u_tt", "u_xx"), lambda x, d: d.u_tt - 4 * d.u_xx),
            dirichlet("boundary", self.domain.faces("x")),
            dirichlet("initial", start, self.exact),
            Term("velocity", (start,), ("u_t",), lambda x, d: d.u_t),
        )

    def exact(self, x):
        first = torch.sin(math.pi * x.x) * torch.cos(2 * math.pi * x.t)
        return first + 0.5 * torch.sin(4 * math.pi * x.x) * torch.cos(8 * math.pi * x.t)
