"""Unknown coefficients of a problem, trained with the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ntkrun.jets import Jet
from ntkrun.network.base import JetNetwork
from ntkrun.network.constrained import Constrained, ConstrainedJets
from ntkrun.network.wrapped import Wrapped, WrappedJets

if TYPE_CHECKING:
    from ntkrun.pde import Coefficient

Value = TypeVar("Value", Jet, Tensor)


def with_coefficients(network: nn.Module, coefficients: Sequence[Coefficient]) -> nn.Module:
    """Wrap a network so that it puts out trainable coefficients beside its own outputs, the same at every point.

    A coefficient is a gain p on a column of ones, so its rows of the Jacobian are exact on every route. p starts at 0
    and stands for start + scale p; for start exp(s p) where the coefficient is positive; for a point between its
    bounds, by the logistic function of s p, where it has bounds. s is 1, or what makes its slope at p = 0 the scale.

    Args:
        network: a ``JetNetwork``, or any module mapping ``[N, d]`` to ``[N, fields]`` row by row.
        coefficients: of the problem.

    Returns:
        A network of the same kind, with one more parameter, ``[len(coefficients)]``.
    """
    kind = CoefficientJets if isinstance(network, JetNetwork) else CoefficientModule
    return kind(network, coefficients)  # type: ignore[arg-type]


def coefficient_values(network: nn.Module) -> dict[str, float]:
    """The present values of the coefficients that a network carries, by name."""
    if not isinstance(network, (CoefficientJets, CoefficientModule)):
        return {}
    values = _values(network.coefficients, network.coefficient.detach().double()[None])
    return {c.name: float(value) for c, value in zip(network.coefficients, values, strict=True)}


def coefficient_slopes(network: nn.Module) -> dict[str, float]:
    """The derivative of each coefficient with respect to its entry of the parameter ``coefficient``, by name."""
    if not isinstance(network, (CoefficientJets, CoefficientModule)):
        return {}
    raw = network.coefficient.detach().double()[None].requires_grad_()
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(torch.cat(_values(network.coefficients, raw)).sum(), raw)
    return {c.name: float(slope) for c, slope in zip(network.coefficients, slopes[0], strict=True)}


class CoefficientJets(WrappedJets):
    """A network on jets with coefficients as further outputs; see ``with_coefficients``."""

    def __init__(self, network: JetNetwork, coefficients: Sequence[Coefficient]) -> None:
        super().__init__(network)
        self.coefficients = tuple(coefficients)
        self.coefficient = nn.Parameter(torch.zeros(len(coefficients)))

    def forward(self, jet: Jet) -> Jet:
        values = self._values(jet)
        return Jet.cat([self._fields(jet, values), *values])

    def fields(self, jet: Jet) -> Jet:
        """The network's outputs alone; an output transform has read the coefficients."""
        return self._fields(jet, self._values(jet))

    def _fields(self, jet: Jet, values: list[Jet]) -> Jet:
        if not isinstance(self.network, ConstrainedJets):
            fields: Jet = self.network(jet)
            return fields
        return self.network.forward(jet, {c.name: value for c, value in zip(self.coefficients, values, strict=True)})

    def _values(self, jet: Jet) -> list[Jet]:
        ones = jet.streams.new_ones(1, jet.streams.shape[1], len(self.coefficients))
        columns = torch.cat([ones, ones.new_zeros(len(jet.streams) - 1, *ones.shape[1:])])
        raw = Jet(columns, jet.plan, None, jet.uses).gain(self.coefficient)
        return [_value(c, raw.column(i), Jet.exp, Jet.tanh) for i, c in enumerate(self.coefficients)]


class CoefficientModule(Wrapped):
    """Any other module with coefficients as further outputs; see ``with_coefficients``."""

    def __init__(self, network: nn.Module, coefficients: Sequence[Coefficient]) -> None:
        super().__init__(network)
        self.coefficients = tuple(coefficients)
        self.coefficient = nn.Parameter(torch.zeros(len(coefficients)))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, d]`` to ``[N, fields + coefficients]``."""
        values = self._values(x)
        return torch.cat([self._fields(x, values), *values], dim=1)

    def fields(self, x: Tensor) -> Tensor:
        """The network's outputs alone, ``[N, fields]``; an output transform has read the coefficients."""
        return self._fields(x, self._values(x))

    def _fields(self, x: Tensor, values: list[Tensor]) -> Tensor:
        if not isinstance(self.network, Constrained):
            fields: Tensor = self.network(x)
            return fields
        return self.network.forward(x, {c.name: value for c, value in zip(self.coefficients, values, strict=True)})

    def _values(self, x: Tensor) -> list[Tensor]:
        return _values(self.coefficients, self.coefficient.to(x.dtype).expand(len(x), -1))


def _values(coefficients: Sequence[Coefficient], raw: Tensor) -> list[Tensor]:
    """The coefficients that entries ``[N, k]`` stand for, ``[N, 1]`` each."""
    return [_value(c, raw[:, i : i + 1], torch.exp, torch.tanh) for i, c in enumerate(coefficients)]


def _value(c: Coefficient, raw: Value, exp: Callable[[Any], Any], tanh: Callable[[Any], Any]) -> Value:
    s = c.unit / c.natural
    if c.bounds is not None:
        low, high = c.bounds
        middle, half = (low + high) / 2, (high - low) / 2
        inner = math.atanh((c.start - middle) / half)
        between: Value = tanh(raw * (0.5 * s) + inner) * half + middle
        return between
    if c.positive:
        grown: Value = exp(raw * s) * c.start
        return grown
    return raw * c.unit + c.start
