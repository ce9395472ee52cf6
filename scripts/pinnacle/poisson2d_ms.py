"""Poisson2d-MS of PINNacle: conduction through 25 blocks of very different conductivities."""

import math
from pathlib import Path

import numpy as np
import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import robin

SIDES = (-6.0, -2.0, 2.0, 6.0)
BESIDE = 1e-6  # where one-sided derivatives at the sides of blocks are read


class Poisson2dMs(PDE):
    """-div(a grad u) = f on [-10, 10]^2, u_n = -u at the boundary; a is constant on each of 5 x 5 blocks, 0.01 to 1000.

    On a block f = f_0 + f_1 sin(pi r) sin(pi s), with r and s from 0 to 1. The network reads the distances to the sides
    of blocks, across which slopes of u jump and fluxes do not.
    """

    def __init__(self, seed: int = 0):
        self.domain = Box.of(x=(-10.0, 10.0), y=(-10.0, 10.0))
        generator = np.random.default_rng(seed)
        self.conductivities = torch.from_numpy(10 ** generator.uniform(-2, 3, (5, 5)))
        self.sources = torch.from_numpy(generator.uniform(0, 1, (5, 5, 2)))

    def features(self, x):
        return tuple(((c - side) ** 2).sqrt() / 4 for c in (x.x, x.y) for side in SIDES)

    def constrain(self, x, u):
        return (30 * u.u,)

    def block(self, x, y):
        return tuple(((c + 10) / 4).floor().clamp(0, 4).long() for c in (x, y))

    def conductivity(self, x, y):
        return self.conductivities.to(x)[self.block(x, y)]

    def terms(self):
        across_x = tuple(Box.of(x=(side - BESIDE,) * 2, y=(-10.0, 10.0)) for side in SIDES)
        across_y = tuple(Box.of(x=(-10.0, 10.0), y=(side - BESIDE,) * 2) for side in SIDES)
        return (
            Term("residual", (self.domain,), ("u_xx", "u_yy"), self.equation),
            Term("across_x", across_x, ("u_x",), self.flux_x, partner={"x": 2 * BESIDE}),
            Term("across_y", across_y, ("u_y",), self.flux_y, partner={"y": 2 * BESIDE}),
            robin("boundary", self.domain.boundary()),
        )

    def equation(self, x, d):
        constant, wave = self.sources.to(x.x)[self.block(x.x, x.y)].unbind(1)
        sines = torch.sin(math.pi * (x.x + 10) / 4) * torch.sin(math.pi * (x.y + 10) / 4)
        a = self.conductivity(x.x, x.y)
        odd = sum(self.block(x.x, x.y)) % 2  # the sines of these blocks have the other sign
        return a * (d.u_xx + d.u_yy) + constant + wave * sines * (1 - 2 * odd)

    def flux_x(self, x, d):
        return self.jump(self.conductivity(x.x, x.y), d.u_x, self.conductivity(x.x + 2 * BESIDE, x.y), d.partner.u_x)

    def flux_y(self, x, d):
        return self.jump(self.conductivity(x.x, x.y), d.u_y, self.conductivity(x.x, x.y + 2 * BESIDE), d.partner.u_y)

    def jump(self, a, slope, b, other):
        return (a * slope - b * other) / torch.maximum(a, b)

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xy"}, file["values"])
