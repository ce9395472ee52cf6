"""The diffusivity of the diffusion equation from values of the solution."""

from __future__ import annotations

from ntkrun.common.types import Positive
from ntkrun.pde.base import Coefficient, Term
from ntkrun.pde.diffusion import Diffusion


class DiffusionInverse(Diffusion):
    """The problem of ``Diffusion`` with unknown diffusivity, and values of its solution inside the domain.

    Args:
        nu: the true diffusivity, which the values belong to.
        start: the diffusivity that training starts from.
        a, hard_boundary: see ``Diffusion``.
    """

    def __init__(
        self,
        nu: Positive[float] = 0.05,
        start: Positive[float] = 0.5,
        a: Positive[int] = 2,
        hard_boundary: bool = False,
    ) -> None:
        super().__init__(nu, a, hard_boundary)
        self.coefficients = (Coefficient(name="nu", start=start, positive=True, true=nu),)

    def terms(self) -> tuple[Term, ...]:
        _, boundary, initial = super().terms()
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx", "nu"), lambda x, d: d.u_t - d.nu * d.u_xx),
            boundary,
            initial,
            Term("data", (self.domain,), ("u",), lambda x, d: d.u - self.exact(x)),
        )
