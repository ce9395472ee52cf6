"""KS of PINNacle: the Kuramoto-Sivashinsky equation, whose long waves grow into chaos."""

import math
from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import dirichlet, periodic


class Ks(PDE):
    """u_t + 100/16 u u_x + 100/16^2 u_xx + 100/16^4 u_xxxx = 0 on [0, 2 pi] x [0, 1], from cos(x) (1 + sin(x)).

    The suite's program leaves the condition at the ends out; its solution is periodic in x.
    """

    def __init__(self):
        self.domain = Box.of(x=(0.0, 2 * math.pi), t=(0.0, 1.0))
        self.periods = {"x": 2 * math.pi}

    def terms(self):
        return (
            Term("residual", (self.domain,), ("u", "u_t", "u_x", "u_xx", "u_xxxx"), self.equation),
            dirichlet("initial", self.domain.face("t", "low"), lambda x: torch.cos(x.x) * (1 + torch.sin(x.x))),
            periodic("periodic", self.domain, "x", order=4),
        )

    def equation(self, x, d):
        return d.u_t + 100 / 16 * d.u * d.u_x + 100 / 16**2 * d.u_xx + 100 / 16**4 * d.u_xxxx

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xt"}, file["values"])
