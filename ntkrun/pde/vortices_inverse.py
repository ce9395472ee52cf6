"""Two coefficients of the Navier-Stokes equations from velocities."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ntkrun.common.types import NonNegative, Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Coefficient, Columns, Term
from ntkrun.pde.measured import measured_at_random

STREAM = (1.0, 0.5)  # velocity that carries the vortices: without it, the pressure could make up for any a
END = 2.0  # side and duration of what is looked at


class VorticesInverse(PDE):
    """w_t + a (w . grad) w + grad p = nu lap w, div w = 0 for w = (u, v), with unknown a and nu, from values of w.

    The vortices of Taylor and Green, carried by a stream (U, V): with X = x - U t and Y = y - V t,
    u = U - cos X sin Y exp(-2 nu t), v = V + sin X cos Y exp(-2 nu t), p = -(cos 2X + cos 2Y) exp(-4 nu t) / 4; a = 1.
    The pressure is known at a corner alone, for it is determined up to a function of time. Sources: Taylor and Green,
    Proc. R. Soc. Lond. A 158 (1937); the two unknown coefficients: Raissi, Perdikaris, Karniadakis, J. Comput.
    Phys. 378 (2019).

    Args:
        values: points at which both velocities are measured.
        noise: standard deviation of their errors, in that of the values.
        nu: the true viscosity.
        start_a, start_nu: where training starts.
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "v", "p")

    def __init__(
        self,
        values: Positive[int] = 1000,
        noise: NonNegative[float] = 0.0,
        nu: Positive[float] = 0.2,
        start_a: float = 0.5,
        start_nu: Positive[float] = 1.0,
    ) -> None:
        self.nu = nu
        self.domain = Box.of(x=(0.0, END), y=(0.0, END), t=(0.0, END))
        self.coefficients = (
            Coefficient(name="a", start=start_a, scale=1.0, true=1.0),
            Coefficient(name="nu", start=start_nu, positive=True, true=nu),
        )
        self.measurements = measured_at_random(self, ("u", "v"), values, noise)

    def terms(self) -> tuple[Term, ...]:
        corner = self.domain.face("x", "low").face("y", "low")
        names = [f"{w}{suffix}" for w in "uv" for suffix in ("", "_x", "_y", "_t", "_xx", "_yy")]
        return (
            Term("residual", (self.domain,), (*names, "p_x", "p_y", "a", "nu"), self._equations),
            Term("pressure", (corner,), ("p",), lambda x, d: d.p - self._solution(x)[2]),
        )

    @staticmethod
    def _equations(x: Columns, d: Columns) -> Tensor:
        along_x = d.u_t + d.a * (d.u * d.u_x + d.v * d.u_y) + d.p_x - d.nu * (d.u_xx + d.u_yy)
        along_y = d.v_t + d.a * (d.u * d.v_x + d.v * d.v_y) + d.p_y - d.nu * (d.v_xx + d.v_yy)
        return torch.stack([along_x, along_y, d.u_x + d.v_y], dim=1)

    def _solution(self, x: Columns) -> tuple[Tensor, Tensor, Tensor]:
        moved_x, moved_y = x.x - STREAM[0] * x.t, x.y - STREAM[1] * x.t
        decay = torch.exp(-2 * self.nu * x.t)
        u = STREAM[0] - torch.cos(moved_x) * torch.sin(moved_y) * decay
        v = STREAM[1] + torch.sin(moved_x) * torch.cos(moved_y) * decay
        return u, v, -(torch.cos(2 * moved_x) + torch.cos(2 * moved_y)) * decay**2 / 4

    def exact(self, x: Columns) -> Tensor:
        return torch.stack(self._solution(x), dim=1)
