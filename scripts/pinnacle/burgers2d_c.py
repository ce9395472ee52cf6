"""Burgers2d-C of PINNacle: random waves in the plane that steepen to shocks."""

import math
from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import periodic

NU = 0.001


class Burgers2dC(PDE):
    """u_t + u u_x + v u_y = 0.001 lap u, v_t + u v_x + v v_y = 0.001 lap v for t in [0, 1], periodic.

    u and v start from 2 w / max |w| + c, where w is the sum of a_ij sin(2 pi (i x + j y)) + b_ij cos(2 pi (i x + j y))
    over i and j from -4 to 4 with normal a_ij, b_ij and c is uniform on [-1, 1]. These, which the suite keeps as a
    table of values, are drawn anew here. Their period is 1, and so is that of the solution: one of the 16 periods of
    the suite's square [0, 4]^2 is taken.
    """

    fields = ("u", "v")

    def __init__(self):
        self.domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0), t=(0.0, 1.0))
        self.periods = {"x": 1.0, "y": 1.0}

    def terms(self):
        first, second = ("u_x", "u_y", "v_x", "v_y", "u_t", "v_t"), ("u_xx", "u_yy", "v_xx", "v_yy")
        return (
            Term("residual", (self.domain,), ("u", "v", *first, *second), self.equations),
            Term("initial", (self.domain.face("t", "low"),), ("u", "v"), self.start),
            periodic("periodic_x", self.domain, "x", order=2, fields=self.fields),
            periodic("periodic_y", self.domain, "y", order=2, fields=self.fields),
        )

    def equations(self, x, d):
        u = d.u_t + d.u * d.u_x + d.v * d.u_y - NU * (d.u_xx + d.u_yy)
        return torch.stack([u, d.v_t + d.u * d.v_x + d.v * d.v_y - NU * (d.v_xx + d.v_yy)], dim=1)

    def start(self, x, d):
        u, v = waves(x.x, x.y)
        return torch.stack([d.u - u, d.v - v], dim=1)

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xyt"}, file["values"])


def waves(x, y):
    """The initial u and v."""
    draw = torch.Generator().manual_seed(0)
    nodes = torch.arange(128, dtype=torch.float64) / 128
    orders = torch.arange(-4, 5, dtype=torch.float64)
    found = []
    for _ in range(2):
        a, b = torch.randn(2, 9, 9, generator=draw, dtype=torch.float64)
        c = 2 * torch.rand(1, generator=draw, dtype=torch.float64) - 1
        greatest = abs(_sum(*torch.meshgrid(nodes, nodes, indexing="ij"), orders, a, b)).max()
        found.append((2 * _sum(x, y, orders, a, b) / greatest + c).to(x))
    return found


def _sum(x, y, orders, a, b):
    phase = 2 * math.pi * (x[..., None, None] * orders[:, None] + y[..., None, None] * orders)
    return (a * torch.sin(phase) + b * torch.cos(phase)).sum((-2, -1))
