"""What the terms of a problem leave open."""

from __future__ import annotations

import pytest
import torch

from ntkrun.geometry import Box
from ntkrun.network import MLP
from ntkrun.network.coefficients import with_coefficients
from ntkrun.objective import Objective
from ntkrun.objective.symmetry import left_open, reads_outside
from ntkrun.pde import PDE, Advection, Burgers, Coefficient, Columns, Lorenz, Poisson, Term, integral
from ntkrun.pde.conditions import conserved, dirichlet
from tests.problems import Plain

LINE = Box.of(x=(-1.0, 1.0))


class Eigenvalue(PDE):
    """u_xx = -E u with u = 0 at the ends and further conditions."""

    domain = LINE
    coefficients = (Coefficient(name="E", start=2.0),)

    def __init__(self, *further: Term) -> None:
        self.further = further

    def terms(self) -> tuple[Term, ...]:
        equation = Term("residual", (LINE,), ("u", "u_xx", "E"), lambda x, d: d.u_xx + d.E * d.u)
        return (equation, dirichlet("ends", LINE.faces("x")), *self.further)


SQUARE = integral(lambda x, d: d.u**2, "u", x=(-1.0, 1.0), nodes=8)
NORM = conserved("norm", LINE.face("x", "low"), SQUARE, 1.0)
MIDDLE = Term("middle", (Box.of(x=(0.0, 0.0)),), ("u",), lambda x, d: torch.relu(0.5 - d.u))
BUMP = Term("bump", (LINE,), ("u",), lambda x, d: d.u - (x.x > 0.9).to(d.u))


class Lifted(Eigenvalue):
    """The output transform has a value at 0, which no term needs to tell."""

    def constrain(self, x: Columns, u: Columns) -> tuple[object, ...]:
        return (u.u + 1,)


CASES = {
    "an eigenfunction": (Eigenvalue(), "0 satisfies all terms"),
    "with its norm": (Eigenvalue(NORM), "do not tell the solution from its negative"),
    "with its sign": (Eigenvalue(NORM, MIDDLE), None),
    "with data that are 0 at most places": (Eigenvalue(BUMP), None),
    "transformed": (Lifted(NORM), None),
    "a source": (Poisson(), None),
    "an odd equation": (Burgers(), None),
    "two fields of three": (Lorenz(), None),
}


@pytest.mark.parametrize("plain", [False, True], ids=["jets", "module"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_open(name: str, plain: bool) -> None:
    pde, expected = CASES[name]
    torch.manual_seed(0)
    outputs = len(pde.fields)
    inner = Plain(pde.domain, outputs) if plain else MLP(6, 1, domain=pde.domain, outputs=outputs)
    network = with_coefficients(inner, pde.coefficients) if pde.coefficients else inner
    objective = Objective(pde, network.double())
    before = objective.network
    found = left_open(objective, dict.fromkeys(objective.names, 50))
    assert found is None if expected is None else expected in str(found)
    assert objective.network is before


class Delayed(PDE):
    """u_t = -u(t - 1/2) and the mean of u over the last half, with and without what was before."""

    domain = Box.of(t=(0.0, 2.0))

    def __init__(self, known: bool) -> None:
        self.known = known

    def terms(self) -> tuple[Term, ...]:
        def delay(x: Columns, d: Columns) -> torch.Tensor:
            before = d.partner.u
            return d.u_t + (torch.where(x.t < 0.5, 1.0, before) if self.known else before)

        def past(x: Columns, d: Columns) -> torch.Tensor:
            return torch.where(x.t < 0, 1.0, d.u) if self.known else d.u

        window = integral(past, "u", t=(lambda x: x.t - 0.5, "t"), nodes=4)
        return (
            Term("delay", (self.domain,), ("u", "u_t"), delay, partner={"t": -0.5}),
            Term("memory", (self.domain,), ("u",), lambda x, d: d.u - d.window, integrals={"window": window}),
            dirichlet("initial", self.domain.face("t", "low"), 1.0),
        )


@pytest.mark.parametrize("plain", [False, True], ids=["jets", "module"])
@pytest.mark.parametrize("known", [False, True])
def test_what_is_read_outside(known: bool, plain: bool) -> None:
    pde = Delayed(known)
    torch.manual_seed(0)
    network = Plain(pde.domain) if plain else MLP(6, 1, domain=pde.domain)
    objective = Objective(pde, network.double())
    found = reads_outside(objective, dict.fromkeys(objective.names, 50))
    assert list(found) == ([] if known else ["delay", "memory"])
    assert all(0 <= float(where.removeprefix("t=")) < 0.5 for where in found.values())


def test_periodic_partners_are_inside() -> None:
    objective = Objective(Advection(), MLP(6, 1, domain=Advection().domain).double())
    assert reads_outside(objective, dict.fromkeys(objective.names, 50)) == {}
