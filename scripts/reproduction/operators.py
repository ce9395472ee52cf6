"""A supervised term whose rows are a derivative of the network."""

from __future__ import annotations

from ntkrun.common.types import NonNegative
from ntkrun.geometry import Box
from ntkrun.pde import PDE, Term


class Operator(PDE):
    """The derivative of some order of u on [0, 1], with target zero; its kernel is that of the operator.

    Args:
        order: 0 for the identity.
    """

    def __init__(self, order: NonNegative[int] = 0) -> None:
        self.domain = Box.of(x=(0.0, 1.0))
        self.name = "u" if order == 0 else "u_" + order * "x"

    def terms(self) -> tuple[Term, ...]:
        return (Term("data", (self.domain,), (self.name,), lambda x, d: getattr(d, self.name)),)
