"""NS2d-C of PINNacle: the steady flow in a cavity below a lid."""

from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import dirichlet

NU = 0.01


class Ns2dC(PDE):
    """The steady Navier-Stokes equations on [0, 1]^2, nu = 0.01; u = 4 x (1 - x) on the lid, else 0; p(0, 0) = 0."""

    fields = ("u", "v", "p")

    def __init__(self):
        self.domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0))

    def terms(self):
        walls = (*self.domain.faces("x"), self.domain.face("y", "low"))
        read = ("u", "v", *(f"{f}_{c}" for f in "uvp" for c in "xy"), "u_xx", "u_yy", "v_xx", "v_yy")
        return (
            Term("residual", (self.domain,), read, self.equations),
            Term("lid", (self.domain.face("y", "high"),), ("u", "v"), self.on_lid),
            Term("walls", walls, ("u", "v"), lambda x, d: torch.stack([d.u, d.v], dim=1)),
            dirichlet("gauge", Box.of(x=(0, 0), y=(0, 0)), 0.0, "p"),
        )

    def equations(self, x, d):
        along_x = d.u * d.u_x + d.v * d.u_y + d.p_x - NU * (d.u_xx + d.u_yy)
        along_y = d.u * d.v_x + d.v * d.v_y + d.p_y - NU * (d.v_xx + d.v_yy)
        return torch.stack([along_x, along_y, d.u_x + d.v_y], dim=1)

    def on_lid(self, x, d):
        return torch.stack([d.u - 4 * x.x * (1 - x.x), d.v], dim=1)

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xy"}, file["values"])
