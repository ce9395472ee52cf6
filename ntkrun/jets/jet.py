"""The value that flows through a network: all streams of a hidden layer at once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ntkrun.jets import functions
from ntkrun.jets.functions import Activation
from ntkrun.jets.plan import StreamPlan

FUNCTIONS = [
    "sin",
    "cos",
    "exp",
    "log",
    "tanh",
    "sinh",
    "cosh",
    "sigmoid",
    "atan",
    "erf",
    "sqrt",
    "square",
    "reciprocal",
]
"""Those of torch that jets have too."""


@dataclass(frozen=True)
class LinearUse(ABC):
    """One use of parameters that enter linearly: all that their gradients at every point are made from.

    Attributes:
        inputs: input streams, ``[S, N, in]``.
        outputs: output streams before any bias, ``[S, N, out]``. A bias adds to stream 0 only, so
            a gradient with respect to ``outputs`` is also the gradient after the bias.
        nodes: how many of the N points, one after the other, make up one residual row; more than one in integrals.
    """

    inputs: Tensor
    outputs: Tensor
    nodes: int = field(default=1, kw_only=True)

    @property
    @abstractmethod
    def parameters(self) -> tuple[Tensor, ...]:
        """The tensors used, trainable or not."""


@dataclass(frozen=True)
class MatrixUse(LinearUse):
    """One application of a linear map ``outputs = scale * inputs @ weight.T (+ bias_scale * bias)``.

    Attributes:
        weight: ``[out, in]``.
        bias: ``[out]`` or ``None``; it reaches the value stream alone.
    """

    weight: Tensor
    bias: Tensor | None
    scale: float
    bias_scale: float

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)


@dataclass(frozen=True)
class GainUse(LinearUse):
    """One elementwise multiplication of all streams, ``outputs = gain * inputs``.

    Attributes:
        gain: ``[1]`` or ``[width]``.
    """

    gain: Tensor

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        return (self.gain,)


@dataclass(frozen=True)
class Jet:
    """Streams of a layer at N points, and the operations that networks are built from.

    Jets of one plan add, subtract, multiply and divide, also with numbers; where one has width 1, it acts on every
    column of the other.

    Attributes:
        streams: ``[S, N, width]``, laid out as ``plan`` says.
        plan: the stream plan.
        offset: ``[width]`` or ``[1]``, added to the value stream when the jet is next used. A bias touches one
            stream of S; keeping it apart saves a copy of all of them (measured: a tenth of a training step).
        uses: when a list, every linear map and every gain appends its ``LinearUse`` to it.
    """

    streams: Tensor
    plan: StreamPlan
    offset: Tensor | None = None
    uses: list[LinearUse] | None = None

    def linear(self, weight: Tensor, bias: Tensor | None, scale: float = 1.0, bias_scale: float = 1.0) -> Jet:
        """Apply a linear map to every stream; the bias adds to the value alone.

        Args:
            weight: ``[out, in]``.
            bias: ``[out]`` or ``None``.
            scale: constant factor of the weight (``1 / sqrt(in)`` under the NTK parametrisation).
            bias_scale: constant factor of the bias.
        """
        inputs = self.resolve()
        matrix = weight if scale == 1 else scale * weight
        outputs = torch.nn.functional.linear(inputs, matrix)
        if self.uses is not None:
            trainable = weight.requires_grad or (bias is not None and bias.requires_grad)
            if trainable and not outputs.requires_grad:
                outputs.requires_grad_()
            self.uses.append(MatrixUse(inputs, outputs, weight, bias, scale, bias_scale))
        offset = bias if bias is None or bias_scale == 1 else bias_scale * bias
        return Jet(outputs, self.plan, offset, self.uses)

    def gain(self, parameter: Tensor) -> Jet:
        """Multiply every stream elementwise by a trainable parameter.

        Args:
            parameter: ``[1]`` or ``[width]``.

        Raises:
            ValueError: the parameter has another shape.
        """
        inputs = self.resolve()
        if parameter.shape not in ((1,), inputs.shape[-1:]):
            raise ValueError(f"a gain of shape {list(parameter.shape)} does not fit a width of {inputs.shape[-1]}")
        outputs = inputs * parameter
        if self.uses is not None:
            self.uses.append(GainUse(inputs, outputs, parameter))
        return Jet(outputs, self.plan, None, self.uses)

    def map(self, activation: Activation) -> Jet:
        """Apply an elementwise function to all streams by the formula of Faa di Bruno."""
        value, *higher = self._unbind()
        f = activation(value, self.plan.max_order)
        streams = [f[0]]
        for start, order in self.plan.chains():
            z = higher[start - 1 : start - 1 + order]
            streams += [f[1] * z[k - 1] if k == 1 else _curved(f, z, k) + f[1] * z[k - 1] for k in range(1, order + 1)]
        for stream, parts in self.plan.sums():
            total = f[1] * higher[stream - 1]
            for start, order, factor in parts:
                total = torch.add(total, _curved(f, higher[start - 1 :], order), alpha=factor)
            streams.append(total)
        return Jet(torch.stack(streams), self.plan, None, self.uses)

    def sin(self) -> Jet:
        """Elementwise sine."""
        return self.map(functions.sin)

    def cos(self) -> Jet:
        """Elementwise cosine."""
        return self.map(functions.cos)

    def exp(self) -> Jet:
        """Elementwise exponential function."""
        return self.map(functions.exp)

    def log(self) -> Jet:
        """Elementwise natural logarithm."""
        return self.map(functions.log)

    def tanh(self) -> Jet:
        """Elementwise hyperbolic tangent."""
        return self.map(functions.tanh)

    def reciprocal(self) -> Jet:
        """Elementwise 1 / z."""
        return self.map(functions.reciprocal)

    def sqrt(self) -> Jet:
        """Elementwise square root."""
        return self.map(functions.sqrt)

    def atan(self) -> Jet:
        """Elementwise inverse tangent."""
        return self.map(functions.atan)

    def erf(self) -> Jet:
        """Elementwise error function."""
        return self.map(functions.erf)

    def sigmoid(self) -> Jet:
        """Elementwise logistic function."""
        return (self * 0.5).tanh() * 0.5 + 0.5

    def sinh(self) -> Jet:
        """Elementwise hyperbolic sine."""
        return (self.exp() - (-self).exp()) * 0.5

    def cosh(self) -> Jet:
        """Elementwise hyperbolic cosine."""
        return (self.exp() + (-self).exp()) * 0.5

    def square(self) -> Jet:
        """Elementwise square."""
        return self**2

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Jet:
        """``torch.sin(jet)`` and the like: a formula reads as it does for tensors."""
        name = function.__name__.strip("_")
        if name not in FUNCTIONS or len(args) > 1 or kwargs:
            raise TypeError(
                f"torch.{name} is not known with its derivatives; known are {', '.join(FUNCTIONS)}, and + - * / ** of "
                "fields, coordinates and numbers"
            )
        jet: Jet = getattr(args[0], name)()
        return jet

    def __pow__(self, exponent: float) -> Jet:
        if exponent < 0:
            return self.map(functions.power(-exponent)).reciprocal()
        return self.map(functions.power(exponent))

    def __truediv__(self, other: Jet | float) -> Jet:
        if isinstance(other, Jet):
            return self * other.reciprocal()
        return self * (1 / other) if isinstance(other, (int, float)) else NotImplemented

    def __rtruediv__(self, other: float) -> Jet:
        return self.reciprocal() * other

    def __add__(self, other: Jet | float) -> Jet:
        if isinstance(other, Jet):
            return Jet(self.streams + other.streams, self.plan, _sum(self.offset, other.offset), self.uses)
        if isinstance(other, (int, float)):
            return Jet(self.streams, self.plan, _sum(self.offset, self.streams.new_full((1,), other)), self.uses)
        return NotImplemented

    __radd__ = __add__

    def __mul__(self, other: Jet | float) -> Jet:
        if isinstance(other, Jet):
            streams = _product(self._unbind(), other._unbind(), self.plan)
            return Jet(torch.stack(streams), self.plan, None, self.uses)
        if isinstance(other, (int, float)):
            offset = None if self.offset is None else self.offset * other
            return Jet(self.streams * other, self.plan, offset, self.uses)
        return NotImplemented

    __rmul__ = __mul__

    def __neg__(self) -> Jet:
        return self * -1

    def __sub__(self, other: Jet | float) -> Jet:
        return self + -other

    def __rsub__(self, other: float) -> Jet:
        return -self + other

    def column(self, i: int) -> Jet:
        """Column ``i`` as a jet of width 1."""
        return Jet(self.resolve()[..., i : i + 1], self.plan, None, self.uses)

    @staticmethod
    def cat(jets: Sequence[Jet]) -> Jet:
        """Jets of one plan side by side, their widths adding up."""
        return Jet(torch.cat([jet.resolve() for jet in jets], dim=-1), jets[0].plan, None, jets[0].uses)

    def resolve(self) -> Tensor:
        """The streams with the pending offset added, ``[S, N, width]``."""
        if self.offset is None:
            return self.streams
        return torch.cat([self.streams[:1] + self.offset, self.streams[1:]])

    def _unbind(self) -> list[Tensor]:
        """The streams one by one with the pending offset added, ``[N, width]`` each."""
        value, *higher = self.streams.unbind(0)
        return [value if self.offset is None else value + self.offset, *higher]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _curved(f: list[Tensor], z: list[Tensor], order: int) -> Tensor:
    """The derivative of order 2, 3 or 4 of f(z(s)) without f' z^(order), from the derivatives of f and of z."""
    if order == 2:
        return f[2] * z[0] * z[0]
    if order == 3:
        return f[3] * z[0] ** 3 + 3 * f[2] * z[0] * z[1]
    return f[4] * z[0] ** 4 + 6 * f[3] * z[0] ** 2 * z[1] + f[2] * (3 * z[1] * z[1] + 4 * z[0] * z[2])


def _product(a: list[Tensor], b: list[Tensor], plan: StreamPlan) -> list[Tensor]:
    """Streams of a product by the rule of Leibniz, (ab)^(k) = sum_j binom(k, j) a^(j) b^(k - j)."""
    streams = [a[0] * b[0]]
    for start, order in plan.chains():
        for k in range(1, order + 1):
            top = start + k - 1
            total = torch.addcmul(a[0] * b[top], a[top], b[0])
            streams.append(_add_inner(total, a[start:], b[start:], k, 1.0))
    for stream, parts in plan.sums():
        total = torch.addcmul(a[0] * b[stream], a[stream], b[0])
        for start, order, factor in parts:
            total = _add_inner(total, a[start:], b[start:], order, factor)
        streams.append(total)
    return streams


def _add_inner(total: Tensor, a: list[Tensor], b: list[Tensor], k: int, factor: float) -> Tensor:
    """Add ``factor`` times what the rule of Leibniz has for 0 < j < k, from derivatives of order 1, 2, ..."""
    for j in range(1, k):
        total = torch.addcmul(total, a[j - 1], b[k - j - 1], value=factor * math.comb(k, j))
    return total
