"""Coefficients that change along the training."""

from __future__ import annotations

import math

import pytest
import sympy
import torch

from ntkrun.geometry import Box
from ntkrun.objective import Objective
from ntkrun.pde import PDE, Columns, ProblemError, Term, continuation
from ntkrun.pde.notation import term_expressions
from tests.problems import mlp


class Layer(PDE):
    """Reads a coefficient that falls from 0.1 to 0.001."""

    def __init__(self, until: float = 0.8) -> None:
        self.until = until
        self.domain = Box.of(x=(0.0, 1.0))

    def terms(self) -> tuple[Term, ...]:
        return (Term("residual", (self.domain,), ("u_x", "u_xx"), self.equation),)

    def equation(self, x: Columns, d: Columns) -> torch.Tensor:
        result: torch.Tensor = d.u_x - continuation(x, 0.1, 0.001, self.until) * d.u_xx
        return result


@pytest.mark.parametrize(
    ("progress", "exponent"),
    [(0.0, -1.0), (0.2, -1.5), (0.4, -2.0), (0.6, -2.5), (0.8, -3.0), (0.9, -3.0), (1.0, -3.0)],
)
def test_falls_in_equal_ratios_and_stays(progress: float, exponent: float) -> None:
    """The residual of an objective, against d - 10^exponent d'' by nested autograd."""
    torch.manual_seed(0)
    pde = Layer()
    network = mlp(pde.domain).double()
    objective = Objective(pde, network)
    objective.progress.fill_(progress)
    x = torch.rand(5, 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(network(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), x)
    (found,) = objective.residuals(objective.batch({"residual": x.detach()}))
    assert torch.allclose(found, (slope - 10**exponent * second)[:, 0].detach(), rtol=1e-10)


@pytest.mark.parametrize(("first", "last"), [(2.0, 8.0), (-0.1, -0.001)])
def test_rises_and_negative_ones(first: float, last: float) -> None:
    middle = continuation(Columns({"progress": torch.tensor(0.25)}, "x"), first, last, until=0.5)
    assert float(middle) == pytest.approx(math.copysign(math.sqrt(first * last), last))


def test_has_a_notation() -> None:
    """At any time of the run, as the residual has it."""
    (expression,) = term_expressions(Layer(), Layer().terms()[0])
    (progress,) = [each for each in expression.free_symbols if each.name == "progress"]
    for done, factor in ((0, 0.1), (0.4, 0.01), (1, 0.001)):
        coefficient = sympy.expand(expression.subs(progress, done)).coeff(sympy.Symbol("u_xx"))
        assert float(coefficient) == pytest.approx(-factor, rel=1e-6)


@pytest.mark.parametrize(
    ("first", "last", "until", "message"),
    [
        (0.1, 0.0, 0.8, "first=0.1 and last=0, numbers of one sign are expected"),
        (0.1, -0.1, 0.8, "first=0.1 and last=-0.1, numbers of one sign are expected"),
        (math.inf, 1.0, 0.8, "first=inf and last=1, numbers of one sign are expected"),
        (0.1, 0.01, 0.0, "until=0, above 0 and at most 1 is expected"),
        (0.1, 0.01, 1.5, "until=1.5, above 0 and at most 1 is expected"),
    ],
)
def test_numbers_that_cannot_be_used(first: float, last: float, until: float, message: str) -> None:
    with pytest.raises(ProblemError, match=f"^continuation: {message}$"):
        continuation(Columns({"progress": torch.tensor(0.0)}, "x"), first, last, until)
