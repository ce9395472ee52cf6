"""What the terms of a problem leave open."""

from __future__ import annotations

import pytest
import torch

from ntkrun.geometry import Box
from ntkrun.network import MLP
from ntkrun.network.coefficients import with_coefficients
from ntkrun.objective import Objective
from ntkrun.objective.symmetry import left_open
from ntkrun.pde import PDE, Burgers, Coefficient, Columns, Lorenz, Poisson, Term, integral
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
