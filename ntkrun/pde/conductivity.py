"""The conductivity of a rod, an unknown function, from temperatures."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from ntkrun.common.types import NonNegative, Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term
from ntkrun.pde.measured import measured_at_random


class Conductivity(PDE):
    """u_t = (k u_x)_x + f on [0, 1] x [0, 1] with u = 0 at the ends and unknown k(x), from values of u.

    The field k depends on x alone and has a network of its own, which gives log k: a conductivity is positive, and
    where k < 0 the equation is one of heat backwards in time, whose small residuals trap an optimiser far from the
    truth. Closed form, by the choice of f: u = exp(-t) sin(pi x) + exp(-2 t) sin(2 pi x) / 2,
    k = (2 + sin(2 pi x)) / 10. Where u_x = 0, u tells nothing of k; as these places move, k is determined everywhere.

    Args:
        values: how many values of u there are.
        noise: standard deviation of their errors, in that of the values.
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "k")

    def __init__(self, values: Positive[int] = 2000, noise: NonNegative[float] = 0.0) -> None:
        self.built_in = None
        self.domain = Box.of(x=(0.0, 1.0), t=(0.0, 1.0))
        self.depends = {"k": ("x",)}
        self.measurements = measured_at_random(self, ("u",), values, noise)

    def terms(self) -> tuple[Term, ...]:
        names = ("u_t", "u_x", "u_xx", "k", "k_x")
        return (
            Term(
                "residual", (self.domain,), names, lambda x, d: d.u_t - d.k_x * d.u_x - d.k * d.u_xx - self._source(x)
            ),
            Term("boundary", self.domain.faces("x"), ("u",), lambda x, d: d.u),
        )

    def constrain(self, x: Columns, u: Columns) -> tuple[Any, ...]:
        return u.u, u.k.exp()

    def _source(self, x: Columns) -> Tensor:
        pi, first, second = math.pi, torch.exp(-x.t), torch.exp(-2 * x.t)
        sine, double = torch.sin(pi * x.x), torch.sin(2 * pi * x.x)
        k, k_x = (2 + double) / 10, pi * torch.cos(2 * pi * x.x) / 5
        u_t = -first * sine - second * double
        u_x = pi * (first * torch.cos(pi * x.x) + second * torch.cos(2 * pi * x.x))
        u_xx = -(pi**2) * (first * sine + 2 * second * double)
        source: Tensor = u_t - k_x * u_x - k * u_xx
        return source

    def exact(self, x: Columns) -> Tensor:
        double = torch.sin(2 * math.pi * x.x)
        u = torch.exp(-x.t) * torch.sin(math.pi * x.x) + torch.exp(-2 * x.t) * double / 2
        return torch.stack([u, (2 + double) / 10], dim=1)
