"""PNd of PINNacle: Poisson's equation in five dimensions."""

import math

import torch

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term
from ntkrun.pde.conditions import dirichlet


class PNd(PDE):
    """Laplace u = -(pi/2)^2 u on [0, 1]^5, u given on the faces; solution: the sum of sin(pi/2 a), ..., sin(pi/2 e)."""

    def __init__(self):
        self.domain = Box.of(**dict.fromkeys("abcde", (0.0, 1.0)))

    def terms(self):
        laplacian = {"laplacian": {f"u_{c}{c}": 1.0 for c in "abcde"}}
        return (
            Term("residual", (self.domain,), (), self.equation, operators=laplacian),
            dirichlet("boundary", self.domain.faces(*"abcde"), self.exact),
        )

    def equation(self, x, d):
        return d.laplacian + math.pi**2 / 4 * self.exact(x)

    def exact(self, x):
        return sum(torch.sin(math.pi / 2 * getattr(x, c)) for c in "abcde")
