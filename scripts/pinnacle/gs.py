"""GS of PINNacle: the Gray-Scott equations, a reaction that spreads from a spot."""

from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import periodic

B, D = 0.04, 0.1


class Gs(PDE):
    """u_t = 1e-5 lap u + b (1 - u) - u v^2, v_t = 5e-6 lap v - d v + u v^2 on [-1, 1]^2 x [0, 200].

    b = 0.04, d = 0.1. The suite's program leaves the condition at the sides out; its solution is periodic.
    """

    fields = ("u", "v")

    def __init__(self):
        self.domain = Box.of(x=(-1.0, 1.0), y=(-1.0, 1.0), t=(0.0, 200.0))
        self.periods = {"x": 2.0, "y": 2.0}

    def terms(self):
        second = ("u_xx", "u_yy", "v_xx", "v_yy")
        return (
            Term("residual", (self.domain,), ("u", "v", "u_t", "v_t", *second), self.equations),
            Term("initial", (self.domain.face("t", "low"),), ("u", "v"), self.start),
            periodic("periodic_x", self.domain, "x", order=2, fields=self.fields),
            periodic("periodic_y", self.domain, "y", order=2, fields=self.fields),
        )

    def features(self, x):
        """The spot is small, and changes fast at first."""
        return (8 * x.x).tanh(), (8 * x.y).tanh(), (1 + x.t / 5).log() / 2

    def equations(self, x, d):
        reaction = d.u * d.v**2
        u = d.u_t - 1e-5 * (d.u_xx + d.u_yy) - B * (1 - d.u) + reaction
        return torch.stack([u, d.v_t - 5e-6 * (d.v_xx + d.v_yy) + D * d.v - reaction], dim=1)

    def start(self, x, d):
        u = 1 - torch.exp(-80 * ((x.x + 0.05) ** 2 + (x.y + 0.02) ** 2))
        return torch.stack([d.u - u, d.v - torch.exp(-80 * ((x.x - 0.05) ** 2 + (x.y - 0.02) ** 2))], dim=1)

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xyt"}, file["values"])
