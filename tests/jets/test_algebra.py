"""Operations between jets, against nested reverse-mode autograd of the same formula on tensors."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ntkrun.jets import Jet, LinearUse, plan_streams
from ntkrun.jets.functions import power
from tests.oracle import derivative, relative

INDICES = ["".join(c) for order in range(5) for c in itertools.combinations_with_replacement("xt", order)]
PLAN = plan_streams(INDICES, "xt")
W = torch.tensor([[0.8, -0.3], [0.2, 1.1], [-0.5, 0.4]], dtype=torch.float64)
B = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)
GAIN = torch.tensor([0.7, -1.2, 0.4], dtype=torch.float64)

# Each formula takes a column x of width 1 and a linear map h of width 3, whose bias is still pending on jets.
FORMULAS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda x, h: h + x,
    "sum-of-pending": lambda x, h: h + h,
    "sum-with-number": lambda x, h: 2 + (h + 1.5),
    "difference": lambda x, h: x - h,
    "difference-with-number": lambda x, h: 1 - (h - 3),
    "negative": lambda x, h: -h,
    "scaled": lambda x, h: 3 * h * 0.5,
    "product": lambda x, h: h * h.sin(),
    "product-of-pending": lambda x, h: (h + 1) * (2 * h - x),
    "product-broadcast": lambda x, h: x * h,
    "product-broadcast-right": lambda x, h: h.tanh() * x,
    "power-0": lambda x, h: h**0 + 0 * h,
    "power-1": lambda x, h: h**1,
    "power-2": lambda x, h: h**2,
    "power-6": lambda x, h: h**6,
    "power-minus-2": lambda x, h: (h.exp() + 1) ** -2,
    "quotient": lambda x, h: (h - x) / (h.exp() + 1),
    "quotient-with-number": lambda x, h: h / 4,
    "quotient-of-number": lambda x, h: 2 / (h.exp() + 1),
    "functions-of-torch": lambda x, h: torch.sin(h) * torch.exp(x) + torch.log(torch.square(h) + 1),
    "power-two-thirds": lambda x, h: (h.exp() + x**2) ** (2 / 3),
    "sin": lambda x, h: h.sin(),
    "cos": lambda x, h: h.cos(),
    "exp": lambda x, h: h.exp(),
    "log": lambda x, h: (h.exp() + 1).log(),
    "reciprocal": lambda x, h: (h.exp() + 1).reciprocal(),
    "sqrt": lambda x, h: (h.exp() + x**2).sqrt(),
    "atan": lambda x, h: (3 * h).atan(),
    "erf": lambda x, h: h.erf(),
    "sinh": lambda x, h: h.sinh(),
    "cosh": lambda x, h: h.cosh(),
    "sigmoid": lambda x, h: h.sigmoid(),
    "tanh": lambda x, h: h.tanh(),
    "nested": lambda x, h: (1 - x) * (h.exp() * x).sin() - x**3 * h.cos(),
}


def points() -> torch.Tensor:
    return torch.rand(4, 2, dtype=torch.float64) - 0.3


def hidden(jet: Jet) -> Jet:
    return jet.linear(W, B)


def start(x: torch.Tensor, uses: list[LinearUse] | None = None) -> Jet:
    return Jet(PLAN.seed(x), PLAN, None, uses)


def assert_derivatives(jet: Jet, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
    """All derivatives up to order 4, mixed ones included, of every column of ``function``, ``[N, width]``."""
    read = PLAN.read(jet.resolve())
    columns = function(x).shape[1]
    assert jet.resolve().shape[-1] == columns
    for index, column in itertools.product(INDICES, range(columns)):
        axes = ["xt".index(letter) for letter in index]
        expected = derivative(lambda z, column=column: function(z)[:, column], x, axes)
        assert (read[index][:, column] - expected).abs().max() < 1e-11 * (1 + expected.abs().max()), (index, column)


@pytest.mark.parametrize("formula", FORMULAS)
def test_every_derivative_up_to_order_four(formula: str) -> None:
    x, f = points(), FORMULAS[formula]
    jet = f(start(x).column(0), hidden(start(x)))
    assert_derivatives(jet, lambda z: f(z[:, :1], z @ W.T + B), x)


def test_columns_side_by_side() -> None:
    x = points()
    jet = Jet.cat([hidden(start(x)).column(2), hidden(start(x)) + 1, start(x).column(1).sin()])
    assert jet.uses is None
    tensors = lambda z: torch.cat([(z @ W.T + B)[:, 2:], z @ W.T + B + 1, z[:, 1:].sin()], dim=1)  # noqa: E731
    assert_derivatives(jet, tensors, x)


@pytest.mark.parametrize("gain", [GAIN, GAIN[:1]], ids=["vector", "number"])
def test_gain_after_a_pending_bias(gain: torch.Tensor) -> None:
    x = points()
    assert_derivatives(hidden(start(x)).gain(gain).tanh(), lambda z: torch.tanh(gain * (z @ W.T + B)), x)


def test_gain_of_a_wrong_shape() -> None:
    with pytest.raises(ValueError, match=r"a gain of shape \[2\] does not fit a width of 3"):
        hidden(start(points())).gain(GAIN[:2])


def test_negative_power() -> None:
    with pytest.raises(ValueError, match="exponent -1"):
        power(-1)


def test_functions_without_derivatives_are_named() -> None:
    jet = start(points())
    for wrong in (lambda: torch.sort(jet), lambda: torch.log(jet, out=torch.ones(1))):
        with pytest.raises(TypeError, match=r"torch\.\w+ is not known with its derivatives; known are sin, cos"):
            wrong()


def test_only_numbers_and_jets_are_operands() -> None:
    """A tensor could vary from point to point without its derivatives."""
    jet = start(points())
    with pytest.raises(TypeError):
        jet * torch.ones(4, 1)  # type: ignore[operator]
    with pytest.raises(TypeError):
        jet + torch.ones(4, 1)  # type: ignore[operator]


def test_uses_survive_every_operation() -> None:
    uses: list[LinearUse] = []
    x = points()
    jet = hidden(start(x, uses))
    for result in [jet + jet, 1 - jet, 2 * jet, -jet, jet * jet, jet**2, jet.sin(), jet.column(0), Jet.cat([jet, jet])]:
        assert result.uses is uses
    jet.gain(GAIN)
    assert [use.parameters for use in uses] == [(W, B), (GAIN,)]


def test_gradients_through_a_product() -> None:
    """With respect to weights, of a mixed derivative of a product, against double backward."""
    weight, x = W.clone().requires_grad_(), points()
    jet = start(x).linear(weight, B)
    ours = torch.autograd.grad(PLAN.read((jet.sin() * jet).resolve())["xxt"].square().sum(), weight)[0]

    def column(i: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda z: (torch.sin(z @ weight.T + B) * (z @ weight.T + B))[:, i]

    expected = torch.stack([derivative(column(i), x, [0, 0, 1]) for i in range(3)]).square().sum()
    assert relative(ours, torch.autograd.grad(expected, weight)[0]) < 1e-11
