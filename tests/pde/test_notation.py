"""Mathematical notation of problems, against their own code at random numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sympy
import torch

from ntkrun.geometry import Box
from ntkrun.pde import (
    PDE,
    AllenCahn,
    Burgers,
    Cavity,
    Columns,
    Cylinder,
    Helmholtz,
    KleinGordon,
    KortewegDeVries,
    Kovasznay,
    Lorenz,
    LotkaVolterra,
    Poisson,
    Schroedinger,
    TaylorGreen,
    Term,
    VanDerPol,
    Wave,
    integral,
)
from ntkrun.pde.notation import NotationError, integral_words, number, solution_expressions, term_expressions


class Stacks(PDE):
    """Computes with all components at once."""

    domain = Box.of(x=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        return (Term("residual", (self.domain,), ("u", "u_x"), self._residual),)

    @staticmethod
    def _residual(x: Columns, d: Columns) -> torch.Tensor:
        own, other = torch.stack([d.u, x.x * d.u_x], dim=1), torch.stack([d.u_x, x.x.sin()], dim=1)
        return 2 - (-own + 3 * other * own - 1) / 4


class TakesApart(PDE):
    """Reads single columns of a solution of three fields."""

    domain = Box.of(x=(0.5, 1.0), y=(0.5, 2.0))
    fields = ("u", "v", "w")

    def terms(self) -> tuple[Term, ...]:
        return (
            Term("some", (self.domain,), ("u", "v"), lambda x, d: torch.stack([d.u, d.v], 1) - self.exact(x)[:, 1:]),
            Term("one", (self.domain,), ("w",), lambda x, d: d.w - self.exact(x)[..., -1] * self.exact(x).unbind(1)[0]),
        )

    def exact(self, x: Columns) -> torch.Tensor:
        return torch.stack([x.x, torch.atan2(x.y, -x.x), x.x * x.y], dim=1)


class Jumps(PDE):
    """Coefficients that depend on where a point lies."""

    domain = Box.of(x=(0.0, 1.0), y=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        return (Term("residual", (self.domain,), ("u", "u_xx"), self._residual),)

    @staticmethod
    def _residual(x: Columns, d: Columns) -> torch.Tensor:
        corner = (x.x < 0.5) & (x.y >= 0.5) | ~(x.x <= 0.75) & torch.lt(x.y, 0.25)
        own = torch.where(x.y > 0.5, 2.0, torch.maximum(x.x, x.y))
        return torch.where(corner, x.x, 3.0) * d.u_xx - own * d.u


PROBLEMS = [
    *(Stacks(), TakesApart(), Cylinder(), Jumps()),
    *(Kovasznay(), TaylorGreen(), Schroedinger(), Lorenz(), LotkaVolterra(), VanDerPol(), KortewegDeVries()),
    *(Poisson(a=3), Wave(c=1.5), Burgers(), AllenCahn(), Cavity(), Helmholtz(k=0.3), KleinGordon()),
]


@pytest.mark.parametrize("pde", PROBLEMS, ids=lambda pde: type(pde).__name__)
def test_terms_say_what_is_computed(pde: PDE) -> None:
    generator = np.random.default_rng(0)
    for term in pde.terms():
        if term.partner is not None:
            continue
        expressions = term_expressions(pde, term)
        letters = set(term.derivatives) | {name for formula in term.operators.values() for name in formula}
        values = {name: generator.uniform(0.2, 0.8) for name in sorted({*letters, *pde.coordinates})}
        read = {name: torch.tensor([values[name]], dtype=torch.float64) for name in term.derivatives}
        for name, formula in term.operators.items():
            read[name] = torch.tensor(
                [sum(factor * values[each] for each, factor in formula.items())], dtype=torch.float64
            )
        x = {c: torch.tensor([values[c]], dtype=torch.float64) for c in pde.coordinates}
        expected = term.residual(Columns(x, "x"), Columns(read, "d")).reshape(-1)
        ours = [float(each.subs({sympy.Symbol(n): v for n, v in values.items()})) for each in expressions]
        np.testing.assert_allclose(ours, expected, rtol=1e-5)  # numbers are shown with six digits


@pytest.mark.parametrize("pde", [Poisson(a=3), Wave(c=1.5), Helmholtz(), KleinGordon()], ids=lambda p: type(p).__name__)
def test_solutions_say_what_is_computed(pde: PDE) -> None:
    (expression,) = solution_expressions(pde)
    values = dict(zip(pde.coordinates, (0.3, 0.7), strict=False))
    expected = pde.exact(Columns({c: torch.tensor([v], dtype=torch.float64) for c, v in values.items()}, "x"))
    assert expected is not None
    assert float(expression.subs({sympy.Symbol(c): v for c, v in values.items()})) == pytest.approx(float(expected))


@pytest.mark.parametrize("place", [(0.2, 0.1), (0.2, 0.7), (0.7, 0.1), (0.8, 0.1), (0.8, 0.6)])
def test_jumps_say_what_is_computed_on_every_side(place: tuple[float, float]) -> None:
    (term,) = Jumps().terms()
    (expression,) = term_expressions(Jumps(), term)
    values = {"x": place[0], "y": place[1], "u": 0.3, "u_xx": -1.7}
    columns = Columns({name: torch.tensor([v], dtype=torch.float64) for name, v in values.items()}, "both")
    ours = expression.subs({sympy.Symbol(name): value for name, value in values.items()})
    assert float(ours) == pytest.approx(float(term.residual(columns, columns)))


def test_partners_are_places() -> None:
    (periodic,) = (term for term in AllenCahn().terms() if term.partner)
    assert "u(x+2, t)" in str(term_expressions(AllenCahn(), periodic))
    halfway = Term("a", (), ("u",), lambda x, d: d.u - d.partner.u, partner={"x": lambda x: x.x / 2 + x.t})
    assert "u(t + x/2, t)" in str(term_expressions(AllenCahn(), halfway))


INTEGRALS = {
    "integral of u over x from 0 to 1/2": integral("u", x=(0.0, 0.5)),
    "mean of u**2*x over x from 0 to t and t from t - 1 to t": integral(
        lambda x, d: x.x * d.u**2, "u", x=(0, "t"), t=(lambda x: x.t - 1, "t"), mean=True
    ),
    "integral of u*sin(row.t - t) over t from 0 to t": integral(
        lambda x, d: torch.sin(x.row.t - x.t) * d.u, "u", t=(0.0, "t")
    ),
    "integral of nx*u_x over x, t in face": integral(
        lambda x, d: x.nx * d.u_x, "u_x", shape=Box.of(x=(0.0, 1.0), t=(0.0, 1.0)).boundary("x_low")
    ),
}


@pytest.mark.parametrize("words", INTEGRALS)
def test_integrals_in_words(words: str) -> None:
    assert integral_words(AllenCahn(), INTEGRALS[words]) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((2.0, "2"), (0.5, "1/2"), (4 * math.pi, "4*pi"), (0.01 / math.pi, "1/(100*pi)"), (0.123457, "0.123457")),
        *((math.pi**2 / 4, "pi**2/4"), (1e-4, "0.0001"), (-2 * math.pi / 3, "-2*pi/3")),
    ],
)
def test_numbers_as_one_would_write_them(value: float, text: str) -> None:
    shown = number(value)
    assert float(shown) == pytest.approx(value, rel=1e-6)
    assert (str(shown).rstrip("0") if "." in str(shown) else str(shown)) == text


class Branching(PDE):
    domain = Box.of(x=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        return (Term("residual", (self.domain,), ("u",), lambda x, d: d.u if x.x > 0.5 else -d.u),)


class Rows(PDE):
    domain = Box.of(x=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        return (Term("residual", (self.domain,), ("u",), lambda x, d: torch.stack([d.u, d.u], dim=1)[0]),)


class Elsewhere(PDE):
    domain = Box.of(x=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        return (Term("residual", (self.domain,), ("u",), lambda x, d: d.u - torch.from_numpy(np.sin(x.x.numpy()))),)


def test_a_method_without_notation_is_named() -> None:
    pde = Elsewhere()
    with pytest.raises(NotationError, match=r"^the method numpy of a column has no notation here$"):
        term_expressions(pde, pde.terms()[0])


def test_rows_have_no_notation() -> None:
    pde = Rows()
    with pytest.raises(NotationError, match=r"\[0\] is not about columns"):
        term_expressions(pde, pde.terms()[0])


def test_code_without_notation_is_named() -> None:
    pde = Branching()
    with pytest.raises(NotationError, match="a branch that depends on a column"):
        term_expressions(pde, pde.terms()[0])
