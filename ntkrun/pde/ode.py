"""Systems of ordinary differential equations in time."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from ntkrun.common.types import NonNegative, Positive
from ntkrun.geometry import Box
from ntkrun.pde.base import PDE, Columns, Reference, Term
from ntkrun.pde.references import load_reference


class InitialValueProblem(PDE):
    """Equations on [0, end] with values of all fields at t = 0, and a numerical solution for the usual numbers.

    Attributes:
        stored: name of the stored solution.
        usual: the numbers that it belongs to, by the constructor's names.
        numbers: those of this problem.
    """

    stored: ClassVar[str]
    usual: ClassVar[Mapping[str, float]]
    numbers: Mapping[str, float] = MappingProxyType({})

    def _set(self, end: float, **numbers: float) -> None:
        self.numbers = {**numbers, "end": end}
        self.domain = Box.of(t=(0.0, end))

    def reference(self) -> Reference | None:
        return load_reference(self.stored, self.coordinates) if self.numbers == dict(self.usual) else None

    def _start(self, *fields: str) -> Term:
        """The term of the initial values, given under the names ``<field>0``."""
        values = [self.numbers[f"{field}0"] for field in fields]

        def residual(x: Columns, d: Columns) -> Tensor:
            return torch.stack([getattr(d, f) - value for f, value in zip(fields, values, strict=True)], dim=1)

        return Term("initial", (self.domain.face("t", "low"),), fields, residual)


class LotkaVolterra(InitialValueProblem):
    """u' = a u - b u v, v' = c u v - d v: prey u and predators v, from u0 and v0 on [0, end].

    Source: Lotka (1925), Volterra (1926). The orbits are closed; with the usual numbers one takes about 8. The
    reference, for these alone, is SciPy's DOP853 with tolerances of 1e-13, on 401 points; absolute error below 1e-10.

    Args:
        a: growth rate of the prey.
        b: rate at which predators catch prey.
        c: rate at which predators grow on prey.
        d: death rate of the predators.
        u0: prey at the start.
        v0: predators at the start.
        end: the last time.
    """

    fields: ClassVar[tuple[str, ...]] = ("u", "v")
    stored = "lotka_volterra"
    usual = MappingProxyType({"a": 2 / 3, "b": 4 / 3, "c": 1.0, "d": 1.0, "u0": 1.0, "v0": 1.0, "end": 10.0})

    def __init__(
        self,
        a: Positive[float] = 2 / 3,
        b: Positive[float] = 4 / 3,
        c: Positive[float] = 1.0,
        d: Positive[float] = 1.0,
        u0: Positive[float] = 1.0,
        v0: Positive[float] = 1.0,
        end: Positive[float] = 10.0,
    ) -> None:
        self.a, self.b, self.c, self.d = a, b, c, d
        self._set(end, a=a, b=b, c=c, d=d, u0=u0, v0=v0)

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("u", "v", "u_t", "v_t"), self._residual),
            self._start("u", "v"),
        )

    def _residual(self, x: Columns, d: Columns) -> Tensor:
        prey = d.u_t - self.a * d.u + self.b * d.u * d.v
        predators = d.v_t - self.c * d.u * d.v + self.d * d.v
        return torch.stack([prey, predators], dim=1)


class VanDerPol(InitialValueProblem):
    """u'' - mu (1 - u^2) u' + u = 0 from u0 and u' = v0 on [0, end].

    Source: Van der Pol, Phil. Mag. 2 (1926). For large mu, slow drift and sudden jumps alternate. The reference, for
    the usual numbers alone, is SciPy's DOP853 with tolerances of 1e-13, on 401 points; absolute error below 1e-10.

    Args:
        mu: strength of the nonlinear damping.
        u0: value at the start.
        v0: velocity at the start.
        end: the last time.
    """

    stored = "van_der_pol"
    usual = MappingProxyType({"mu": 1.0, "u0": 2.0, "v0": 0.0, "end": 10.0})

    def __init__(
        self, mu: NonNegative[float] = 1.0, u0: float = 2.0, v0: float = 0.0, end: Positive[float] = 10.0
    ) -> None:
        self.mu = mu
        self._set(end, mu=mu, u0=u0, v0=v0)

    def terms(self) -> tuple[Term, ...]:
        velocity = self.numbers["v0"]
        return (
            Term("residual", (self.domain,), ("u", "u_t", "u_tt"), self._residual),
            self._start("u"),
            Term("initial_velocity", (self.domain.face("t", "low"),), ("u_t",), lambda x, d: d.u_t - velocity),
        )

    def _residual(self, x: Columns, d: Columns) -> Tensor:
        residual: Tensor = d.u_tt - self.mu * (1 - d.u**2) * d.u_t + d.u
        return residual


class Lorenz(InitialValueProblem):
    """x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z from (x0, y0, z0) on [0, end].

    Source: Lorenz, J. Atmos. Sci. 20 (1963). Errors grow like exp(0.9 t) on the way, so the interval is short. The
    reference, for the usual numbers alone, is SciPy's DOP853 with tolerances of 1e-13, on 401 points; absolute error
    below 1e-9.

    Args:
        sigma: Prandtl number.
        rho: Rayleigh number over its critical value.
        beta: aspect ratio of the convection cells.
        x0, y0, z0: the start.
        end: the last time.
    """

    fields: ClassVar[tuple[str, ...]] = ("x", "y", "z")
    stored = "lorenz"
    usual = MappingProxyType({"sigma": 10.0, "rho": 28.0, "beta": 8 / 3, "x0": 1.0, "y0": 1.0, "z0": 1.0, "end": 2.0})

    def __init__(
        self,
        sigma: Positive[float] = 10.0,
        rho: Positive[float] = 28.0,
        beta: Positive[float] = 8 / 3,
        x0: float = 1.0,
        y0: float = 1.0,
        z0: float = 1.0,
        end: Positive[float] = 2.0,
    ) -> None:
        self.sigma, self.rho, self.beta = sigma, rho, beta
        self._set(end, sigma=sigma, rho=rho, beta=beta, x0=x0, y0=y0, z0=z0)

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("residual", (self.domain,), ("x", "y", "z", "x_t", "y_t", "z_t"), self._residual),
            self._start("x", "y", "z"),
        )

    def _residual(self, x: Columns, d: Columns) -> Tensor:
        first = d.x_t - self.sigma * (d.y - d.x)
        second = d.y_t - d.x * (self.rho - d.z) + d.y
        third = d.z_t - d.x * d.y + self.beta * d.z
        return torch.stack([first, second, third], dim=1)
