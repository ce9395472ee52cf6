"""NS2d-CG of PINNacle: the steady flow behind a step."""

from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import rectangle
from ntkrun.pde import PDE, Reference, Term

NU = 0.01


class Ns2dCg(PDE):
    """The steady Navier-Stokes equations on [0, 4] x [0, 2] without [0, 2] x [1, 2], nu = 0.01.

    u = 4 y (1 - y), v = 0 at the inlet x = 0, 0 at the walls, nu u_x = p and nu v_x = 0 at the outlet x = 4. The
    suite's program asks for p = 0 alone there, which leaves a condition open, and has obstacles in the stream as an
    option that its benchmark does not take.
    """

    fields = ("u", "v", "p")

    def __init__(self):
        self.domain = rectangle(x=(0.0, 4.0), y=(0.0, 2.0)) - rectangle(x=(0.0, 2.0), y=(1.0, 2.0))
        self.domain = self.domain.marked("walls", lambda x, y: (x > 0) & (x < 4))
        self.domain = self.domain.marked("inlet", lambda x, y: x == 0).marked("outlet", lambda x, y: x == 4)

    def terms(self):
        part = self.domain.boundary
        read = ("u", "v", *(f"{f}_{c}" for f in "uvp" for c in "xy"), "u_xx", "u_yy", "v_xx", "v_yy")
        return (
            Term("residual", (self.domain,), read, self.equations),
            Term("inlet", part("inlet"), ("u", "v"), self.at_inlet),
            Term("walls", part("walls"), ("u", "v"), lambda x, d: torch.stack([d.u, d.v], dim=1)),
            Term("outlet", part("outlet"), ("u_x", "v_x", "p"), self.at_outlet),
        )

    def equations(self, x, d):
        along_x = d.u * d.u_x + d.v * d.u_y + d.p_x - NU * (d.u_xx + d.u_yy)
        along_y = d.u * d.v_x + d.v * d.v_y + d.p_y - NU * (d.v_xx + d.v_yy)
        return torch.stack([along_x, along_y, d.u_x + d.v_y], dim=1)

    def at_inlet(self, x, d):
        return torch.stack([d.u - 4 * x.y * (1 - x.y), d.v], dim=1)

    def at_outlet(self, x, d):
        return torch.stack([NU * d.u_x - d.p, NU * d.v_x], dim=1)

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xy"}, file["values"])
