"""Two coefficients of Burgers' equation from values of its solution."""

from __future__ import annotations

import numpy as np
import torch

from ntkrun.common.types import NonNegative, Positive
from ntkrun.geometry import Box, Table
from ntkrun.pde.base import PDE, Coefficient, Reference, Term
from ntkrun.pde.burgers import NU
from ntkrun.pde.measured import SEED, noisy
from ntkrun.pde.references import load_reference


class BurgersInverse(PDE):
    """u_t + a u u_x = nu u_xx on [-1, 1] x [0, 1] with unknown a and nu; values of the solution are all that is known.

    The values are those of the reference of ``Burgers`` at nodes chosen at random, with a = 1 and nu = 0.01 / pi.
    Source: Raissi, Perdikaris, Karniadakis, J. Comput. Phys. 378 (2019), section 4.1.

    Args:
        values: how many there are.
        noise: standard deviation of their errors, in that of the values.
        a, nu: where training starts.
    """

    def __init__(
        self,
        values: Positive[int] = 2000,
        noise: NonNegative[float] = 0.0,
        a: float = 0.5,
        nu: Positive[float] = 0.03,
    ) -> None:
        self.domain = Box.of(x=(-1.0, 1.0), t=(0.0, 1.0))
        self.coefficients = (
            Coefficient(name="a", start=a, scale=1.0, true=1.0),
            Coefficient(name="nu", start=nu, positive=True, true=NU),
        )
        self.measurements = {"u": self._values(values, noise)}

    def _values(self, number: int, noise: float) -> Table:
        reference = self.reference()
        x, t = (torch.from_numpy(each.flatten()) for each in np.meshgrid(*reference.axes.values(), indexing="ij"))
        generator = torch.Generator().manual_seed(SEED)
        chosen = torch.randperm(len(x), generator=generator)[:number]
        points = torch.stack([x, t], dim=1)[chosen]
        return noisy(self, "u", points, torch.from_numpy(reference.values).flatten()[chosen], noise)

    def terms(self) -> tuple[Term, ...]:
        names = ("u", "u_t", "u_x", "u_xx", "a", "nu")
        return (Term("residual", (self.domain,), names, lambda x, d: d.u_t + d.a * d.u * d.u_x - d.nu * d.u_xx),)

    def reference(self) -> Reference:
        return load_reference("burgers", self.coordinates)
