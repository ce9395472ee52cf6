"""HNd of PINNacle: the heat equation in a ball of five dimensions."""

import torch

from ntkrun.geometry import Box, hyperball
from ntkrun.pde import PDE, Term
from ntkrun.pde.conditions import dirichlet, neumann

LETTERS = "abcde"


class HNd(PDE):
    """5 u_t = Laplace u - |x|^2 exp(|x|^2 / 2 + t) in the unit ball, u_n given; solution: exp(|x|^2 / 2 + t)."""

    def __init__(self):
        self.domain = hyperball((0.0,) * 5, 1.0, letters=LETTERS) * Box.of(t=(0.0, 1.0))

    def terms(self):
        heat = {"heat": {"u_t": 1.0} | {f"u_{c}{c}": -0.2 for c in LETTERS}}
        return (
            Term("residual", (self.domain,), (), self.equation, operators=heat),
            neumann("sphere", self.domain.boundary(), self.exact),
            dirichlet("initial", self.domain.face("t", "low"), self.exact),
        )

    def equation(self, x, d):
        return d.heat + self.square(x) * self.exact(x) / 5

    def square(self, x):
        return sum(getattr(x, c) ** 2 for c in LETTERS)

    def exact(self, x):
        return torch.exp(self.square(x) / 2 + x.t)
