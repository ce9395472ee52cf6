"""NS2d-LT of PINNacle: a channel whose inflow swings with three frequencies."""

import math
from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Reference, Term, integral
from ntkrun.pde.conditions import conserved

NU = 0.01


class Ns2dLt(PDE):
    """The Navier-Stokes equations on [0, 2] x [0, 1] x [0, 5], nu = 0.01, from rest.

    A force (0, -sin(pi x) sin(pi y) sin(pi t)); u = sin(pi y) (sin(pi t) + sin(3 pi t) + sin(5 pi t)), v = 0 at the
    inlet x = 0, 0 at the walls, nu u_x = p and nu v_x = 0 at the outlet x = 2. The suite's program asks for p = 0 alone
    there, which leaves a condition open, and for p = 0 at t = 0, where p follows from the rest. So does the flux$
    through every section, but without that term a network loses it between the inlet and the points next to it.
    """

    fields = ("u", "v", "p")

    def __init__(self):
        self.domain = Box.of(x=(0.0, 2.0), y=(0.0, 1.0), t=(0.0, 5.0))

    def terms(self):
        inlet, outlet = self.domain.face("x", "low"), self.domain.face("x", "high")
        sections, flux = self.domain.face("y", "low"), integral("u", y=(0.0, 1.0))
        first = tuple(f"{f}_{c}" for f in "uvp" for c in "xy")
        read = ("u", "v", "u_t", "v_t", *first, "u_xx", "u_yy", "v_xx", "v_yy")
        return (
            Term("residual", (self.domain,), read, self.equations),
            Term("inlet", (inlet,), ("u", "v"), self.at_inlet),
            Term("walls", self.domain.faces("y"), ("u", "v"), lambda x, d: torch.stack([d.u, d.v], dim=1)),
            Term("outlet", (outlet,), ("u_x", "v_x", "p"), self.at_outlet),
            Term("initial", (self.domain.face("t", "low"),), ("u", "v"), lambda x, d: torch.stack([d.u, d.v], dim=1)),
            conserved("flux", sections, flux, lambda x: 2 / math.pi * self.swing(x)),
        )

    def constrain(self, x, u):
        return u.u, u.v, 20 * u.p

    def equations(self, x, d):
        force = -torch.sin(math.pi * x.x) * torch.sin(math.pi * x.y) * torch.sin(math.pi * x.t)
        along_x = d.u_t + d.u * d.u_x + d.v * d.u_y + d.p_x - NU * (d.u_xx + d.u_yy)
        along_y = d.v_t + d.u * d.v_x + d.v * d.v_y + d.p_y - NU * (d.v_xx + d.v_yy) - force
        return torch.stack([along_x, along_y, d.u_x + d.v_y], dim=1)

    def at_inlet(self, x, d):
        return torch.stack([d.u - torch.sin(math.pi * x.y) * self.swing(x), d.v], dim=1)

    def swing(self, x):
        return sum(torch.sin(k * math.pi * x.t) for k in (1, 3, 5))

    def at_outlet(self, x, d):
        return torch.stack([NU * d.u_x - d.p, NU * d.v_x], dim=1)

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xyt"}, file["values"])
