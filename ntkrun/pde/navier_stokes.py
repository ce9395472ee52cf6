"""Exact solutions of the Navier-Stokes equations."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from ntkrun.common.types import Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Term

FIRST = tuple(f"{field}_{letter}" for field in "uvp" for letter in "xy")


class KnownFlow(PDE):
    """A flow whose velocity and pressure are known."""

    fields: ClassVar[tuple[str, ...]] = ("u", "v", "p")

    @abstractmethod
    def _solution(self, x: Columns) -> tuple[Tensor, Tensor, Tensor]:
        """Both components of the velocity, and the pressure, ``[N]`` each."""

    def exact(self, x: Columns) -> Tensor:
        return torch.stack(self._solution(x), dim=1)

    def _velocity(self, x: Columns, d: Columns) -> Tensor:
        """What is to vanish where the velocity is given, ``[N, 2]``."""
        u, v, _ = self._solution(x)
        return torch.stack([d.u - u, d.v - v], dim=1)


class Kovasznay(KnownFlow):
    """Steady flow behind a grid: (u . grad) u + grad p = Laplace u / Re, div u = 0 on [-1/2, 1] x [-1/2, 3/2].

    Solution u = 1 - exp(l x) cos(2 pi y), v = l exp(l x) sin(2 pi y) / (2 pi), p = (1 - exp(2 l x)) / 2 with
    l = Re / 2 - sqrt(Re^2 / 4 + 4 pi^2). The velocity is given on the edges, the pressure in the corner of the least x
    and y, since it is known up to a constant. Source: Kovasznay, Proc. Camb. Phil. Soc. 44 (1948).

    Args:
        reynolds: Reynolds number.
    """

    def __init__(self, reynolds: Positive[float] = 40.0) -> None:
        self.reynolds = reynolds
        self.domain = Box.of(x=(-0.5, 1.0), y=(-0.5, 1.5))

    def terms(self) -> tuple[Term, ...]:
        corner = self.domain.face("x", "low").face("y", "low")
        viscous = {f"viscous_{field}": self._viscous(field) for field in "uv"}
        return (
            Term("residual", (self.domain,), ("u", "v", *FIRST), self._residual, operators=viscous),
            Term("boundary", self.domain.faces("x", "y"), ("u", "v"), self._velocity),
            Term("pressure", (corner,), ("p",), lambda x, d: d.p - self._solution(x)[2]),
        )

    def _solution(self, x: Columns) -> tuple[Tensor, Tensor, Tensor]:
        rate = self.reynolds / 2 - math.sqrt(self.reynolds**2 / 4 + 4 * math.pi**2)
        decay, y = torch.exp(rate * x.x), 2 * math.pi * x.y
        u, v = 1 - decay * torch.cos(y), rate / (2 * math.pi) * decay * torch.sin(y)
        return u, v, (1 - decay**2) / 2

    def _viscous(self, field: str) -> dict[str, float]:
        return {f"{field}_xx": 1 / self.reynolds, f"{field}_yy": 1 / self.reynolds}

    @staticmethod
    def _residual(x: Columns, d: Columns) -> Tensor:
        return _balance(d, d.viscous_u, d.viscous_v)


class TaylorGreen(KnownFlow):
    """Decaying vortices: u_t + (u . grad) u + grad p = nu Laplace u, div u = 0 on [-pi, pi]^2 x [0, 1], periodic.

    Solution u = -cos(x) sin(y) exp(-2 nu t), v = sin(x) cos(y) exp(-2 nu t),
    p = -(cos(2 x) + cos(2 y)) exp(-4 nu t) / 4. The pressure, known up to a constant at every time, is given in a
    corner. Source: Taylor, Green, Proc. R. Soc. A 158 (1937).

    Args:
        nu: kinematic viscosity.
    """

    def __init__(self, nu: Positive[float] = 0.1) -> None:
        self.nu = nu
        self.domain = Box.of(x=(-math.pi, math.pi), y=(-math.pi, math.pi), t=(0.0, 1.0))
        self.periods = {"x": 2 * math.pi, "y": 2 * math.pi}

    def terms(self) -> tuple[Term, ...]:
        corner = self.domain.face("x", "low").face("y", "low")
        unsteady = {f"heat_{f}": {f"{f}_t": -1.0, f"{f}_xx": self.nu, f"{f}_yy": self.nu} for f in "uv"}
        return (
            Term("residual", (self.domain,), ("u", "v", *FIRST), self._residual, operators=unsteady),
            Term("initial", (self.domain.face("t", "low"),), ("u", "v"), self._velocity),
            Term("pressure", (corner,), ("p",), lambda x, d: d.p - self._solution(x)[2]),
            *(self._periodic(c) for c in "xy"),
        )

    def _solution(self, x: Columns) -> tuple[Tensor, Tensor, Tensor]:
        decay = torch.exp(-2 * self.nu * x.t)
        u, v = -torch.cos(x.x) * torch.sin(x.y) * decay, torch.sin(x.x) * torch.cos(x.y) * decay
        return u, v, -(torch.cos(2 * x.x) + torch.cos(2 * x.y)) * decay**2 / 4

    def _periodic(self, c: str) -> Term:
        """Values and normal derivatives of the velocity and the pressure are the same on opposite faces."""
        names = ("u", "v", "p", f"u_{c}", f"v_{c}")
        return Term(
            f"periodic_{c}",
            (self.domain.face(c, "low"),),
            names,
            lambda x, d: torch.stack([getattr(d, name) - getattr(d.partner, name) for name in names], dim=1),
            {c: self.periods[c]},
        )

    @staticmethod
    def _residual(x: Columns, d: Columns) -> Tensor:
        return _balance(d, d.heat_u, d.heat_v)


def _balance(d: Columns, first: Tensor, second: Tensor) -> Tensor:
    """Momentum along x and y less the linear parts given, and divergence, ``[N, 3]``."""
    momentum_x = d.u * d.u_x + d.v * d.u_y + d.p_x - first
    momentum_y = d.u * d.v_x + d.v * d.v_y + d.p_y - second
    return torch.stack([momentum_x, momentum_y, d.u_x + d.v_y], dim=1)
