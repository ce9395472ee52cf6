"""Wave2d-MS of PINNacle: a membrane of two stiffnesses over fifty periods, with two modes of very different size."""

import math

import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term
from ntkrun.pde.conditions import dirichlet

SIZE = 6000.0  # of the solution


class Wave2dMs(PDE):
    """u_tt = u_xx + 2 u_yy + f on [0, 1]^2 x [0, 100], u given at the sides and at t = 0, where u_t = 0.

    The solution is (sin(pi x) sinh(pi y) + sinh(3 pi x) sin(2 pi y)) cos(pi t), up to 6,196 in size. The suite has it
    without f, but it is no solution then (u_xx + 2 u_yy is pi^2 u, and u_tt is -pi^2 u), and without u_t, which leaves
    it open; f = -2 pi^2 u and u_t = 0 at t = 0 make it the only one.
    """

    def __init__(self):
        self.domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0), t=(0.0, 100.0))

    def terms(self):
        start = self.domain.face("t", "low")
        return (
            Term("residual", (self.domain,), ("u_tt", "u_xx", "u_yy"), self.equation),
            dirichlet("boundary", self.domain.boundary(), self.exact),
            dirichlet("initial", start, self.exact),
            Term("velocity", (start,), ("u_t",), lambda x, d: d.u_t),
        )

    def features(self, x):
        """The given values swing with this frequency."""
        return (math.pi * x.t).cos(), (math.pi * x.t).sin()

    def constrain(self, x, u):
        return (SIZE * u.u,)

    def equation(self, x, d):
        return d.u_tt - d.u_xx - 2 * d.u_yy + 2 * math.pi**2 * self.exact(x)

    def exact(self, x):
        small = torch.sin(math.pi * x.x) * torch.sinh(math.pi * x.y)
        large = torch.sinh(3 * math.pi * x.x) * torch.sin(2 * math.pi * x.y)
        return (small + large) * torch.cos(math.pi * x.t)
