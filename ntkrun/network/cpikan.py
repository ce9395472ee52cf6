"""The Chebyshev Kolmogorov-Arnold network."""

from __future__ import annotations

import itertools
from typing import Unpack

import torch
from torch import Tensor, nn

from ntkrun.common.types import Few, Positive
from ntkrun.jets import MAX_ORDER, Jet
from ntkrun.network.inputs import InputArguments, InputNetwork


class ChebyshevFeatures(nn.Module):
    """The features T_0, ..., T_degree of tanh z for every column z of a jet.

    Since (1 - t^2) T_k'(t) = k/2 (T_{k-1} - T_{k+1}), every derivative of T_k(tanh z) with respect to z is a fixed
    combination of T_0, ..., T_{k+order} at t = tanh z. One recurrence and one small matrix therefore give all
    features and derivatives, with nothing singular where tanh saturates.

    Args:
        degree: the highest degree.
    """

    rule: Tensor

    def __init__(self, degree: int) -> None:
        super().__init__()
        self.degree = degree
        # Whole multiples of 1/16, so exact also in single precision.
        self.register_buffer("rule", _derivative_rule(degree), persistent=False)

    def forward(self, jet: Jet) -> Jet:
        """Map ``width`` columns to ``width * (degree + 1)``, those of the first column in front."""
        columns = Jet(jet.resolve().unsqueeze(-1), jet.plan, None, jet.uses)
        features = columns.map(self._polynomials).streams
        return Jet(features.flatten(-2), jet.plan, None, jet.uses)

    def _polynomials(self, z: Tensor, order: int) -> list[Tensor]:
        """T_0, ..., T_degree of tanh z, ``[N, width, 1]``, and their derivatives, ``[N, width, degree + 1]`` each."""
        size = self.degree + 1
        t = torch.tanh(z)
        polynomials = [torch.ones_like(t), t]
        twice = 2 * t
        for _ in range(2, size + order):
            polynomials.append(twice * polynomials[-1] - polynomials[-2])
        values = torch.cat(polynomials[: size + order], dim=-1)
        if order == 0:
            return [values]
        derivatives = values @ self.rule[: order * size, : size + order].T
        return [values[..., :size], *derivatives.split(size, dim=-1)]


def _derivative_rule(degree: int) -> Tensor:
    """Derivatives of T_0(tanh z), ..., T_degree(tanh z) of order 1, 2, ... in terms of T_0, T_1, ...

    Returns:
        ``[MAX_ORDER * (degree + 1), degree + 1 + MAX_ORDER]``, one block of rows per order.
    """
    size = degree + 1 + MAX_ORDER
    once = torch.zeros(size + 1, size + 1, device="cpu")  # numbers, also where a network is built for its size alone
    for k in range(1, size):
        once[k, k - 1] = k / 2
        once[k, k + 1] = -k / 2
    blocks, rows = [], torch.eye(degree + 1, size + 1, device="cpu")
    for _ in range(MAX_ORDER):
        rows = rows @ once
        blocks.append(rows[:, :size])
    return torch.cat(blocks)


class ChebyshevLayer(nn.Module):
    """y_j = sum_i sum_k c_jik T_k(tanh x_i): a linear map of Chebyshev features.

    Args:
        inputs, outputs: widths.
        degree: the highest degree K.
        generator: source of the coefficients, normal with standard deviation 1 / (inputs (K + 1)), as in the
            Chebyshev KAN of github.com/SynodicMonth/ChebyKAN.
    """

    def __init__(self, inputs: int, outputs: int, degree: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.features = ChebyshevFeatures(degree)
        size = inputs * (degree + 1)
        self.coefficients = nn.Parameter(nn.init.normal_(torch.empty(outputs, size), std=1 / size, generator=generator))

    def forward(self, jet: Jet) -> Jet:
        features: Jet = self.features(jet)
        return features.linear(self.coefficients, None)


class ChebyshevKAN(InputNetwork):
    """Chebyshev Kolmogorov-Arnold network: ``depth`` hidden layers and an output layer, all ``ChebyshevLayer``.

    Sources: Sidharth et al., arXiv 2405.07200; as a PINN, with its NTK: Faroughi and Mostajeran, arXiv 2506.07958.

    Args:
        width: units per hidden layer.
        depth: number of hidden layers.
        degree: the highest degree of the polynomials.
        common: see ``InputNetwork``.
    """

    def __init__(
        self,
        width: Positive[int] = 16,
        depth: Few = 2,
        degree: Few = 4,
        **common: Unpack[InputArguments],
    ) -> None:
        super().__init__(**common)
        generator = common.get("generator")
        sizes = [self.inputs.width, *[width] * depth, self.outputs]
        self.layers = nn.ModuleList(ChebyshevLayer(a, b, degree, generator) for a, b in itertools.pairwise(sizes))

    def forward(self, jet: Jet) -> Jet:
        jet = self.inputs(jet)
        for layer in self.layers:
            jet = layer(jet)
        return jet
