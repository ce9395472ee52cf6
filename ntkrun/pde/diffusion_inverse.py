"""The diffusivity of the diffusion equation from values of the solution."""

from __future__ import annotations

from ntkrun.common.types import NonNegative, Positive
from ntkrun.pde.base import Coefficient, Term
from ntkrun.pde.diffusion import Diffusion
from ntkrun.pde.measured import measured_at_random


class DiffusionInverse(Diffusion):
    """The problem of ``Diffusion`` with unknown diffusivity, and values of its solution inside the domain.

    Args:
        nu: the true diffusivity, which the values belong to.
        start: the diffusivity that training starts from.
        values: how many values of u there are.
        noise: standard deviation of their errors, in that of the values.
        a, hard_boundary: see ``Diffusion``.
    """

    def __init__(
        self,
        nu: Positive[float] = 0.05,
        start: Positive[float] = 0.5,
        values: Positive[int] = 50,
        noise: NonNegative[float] = 0.0,
        a: Positive[int] = 2,
        hard_boundary: bool = False,
    ) -> None:
        super().__init__(nu, a, hard_boundary)
        self.coefficients = (Coefficient(name="nu", start=start, positive=True, true=nu),)
        self.measurements = measured_at_random(self, ("u",), values, noise)

    def terms(self) -> tuple[Term, ...]:
        _, boundary, initial = super().terms()
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx", "nu"), lambda x, d: d.u_t - d.nu * d.u_xx),
            boundary,
            initial,
        )
