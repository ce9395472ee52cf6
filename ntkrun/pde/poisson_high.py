"""Poisson's equation in five and ten dimensions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntkrun.geometry import Box, Domain
from ntkrun.pde.base import PDE, Columns, Term


class Poisson5D(PDE):
    """Laplace u = -pi^2 u on [0, 1]^5 with u given on the faces; solution u = the sum of cos(pi a), ..., cos(pi e).

    The right-hand side is that of the solution, an eigenfunction. Source: Dangel, Müller, Zeinhofer, arXiv 2405.15603.
    Coordinates are a to e.
    """

    def __init__(self) -> None:
        self.domain = cube("abcde")

    def terms(self) -> tuple[Term, ...]:
        return (
            Term(
                "residual",
                (self.domain,),
                (),
                lambda x, d: d.laplacian + math.pi**2 * self.exact(x),
                operators=laplacian(self.domain),
            ),
            Term("boundary", self.domain.faces(*self.coordinates), ("u",), lambda x, d: d.u - self.exact(x)),
        )

    def exact(self, x: Columns) -> Tensor:
        return torch.stack([torch.cos(math.pi * getattr(x, c)) for c in self.coordinates]).sum(0)


class Poisson10D(PDE):
    """Laplace u = 0 on [0, 1]^10 with u given on the faces; solution u = a b + c d + e f + g h + i j.

    Source: E, Yu, Commun. Math. Stat. 6 (2018), and Dangel, Müller, Zeinhofer, arXiv 2405.15603. Coordinates are a to
    j.
    """

    def __init__(self) -> None:
        self.domain = cube("abcdefghij")

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), (), lambda x, d: d.laplacian, operators=laplacian(self.domain)),
            Term("boundary", self.domain.faces(*self.coordinates), ("u",), lambda x, d: d.u - self.exact(x)),
        )

    def exact(self, x: Columns) -> Tensor:
        pairs = zip(self.coordinates[::2], self.coordinates[1::2], strict=True)
        return torch.stack([getattr(x, first) * getattr(x, second) for first, second in pairs]).sum(0)


def cube(letters: str) -> Box:
    """The unit cube with these coordinates."""
    return Box.of(**dict.fromkeys(letters, (0.0, 1.0)))


def laplacian(domain: Domain) -> dict[str, dict[str, float]]:
    """The Laplace operator of u as the operator of a term."""
    return {"laplacian": {f"u_{c}{c}": 1.0 for c in domain.coordinates}}
