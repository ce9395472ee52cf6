"""The value that flows through a network: all streams of a hidden layer at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ntkrun.jets.functions import Activation
from ntkrun.jets.plan import StreamPlan


@dataclass(frozen=True)
class LinearUse:
    """One application of a linear map ``outputs = scale * inputs @ weight.T (+ bias_scale * bias)``.

    Attributes:
        weight: ``[out, in]``.
        bias: ``[out]`` or ``None``; it reaches the value stream alone.
        inputs: input streams, ``[S, N, in]``.
        outputs: output streams before the bias, ``[S, N, out]``. The bias adds to stream 0 only, so
            a gradient with respect to ``outputs`` is also the gradient after the bias.
    """

    weight: Tensor
    bias: Tensor | None
    scale: float
    bias_scale: float
    inputs: Tensor
    outputs: Tensor


@dataclass(frozen=True)
class Jet:
    """Streams of a layer at N points, and the operations that networks are built from.

    Attributes:
        streams: ``[S, N, width]``, laid out as ``plan`` says.
        plan: the stream plan.
        offset: added to the value stream when the jet is next used. A bias touches one stream of S;
            keeping it apart saves a copy of all of them (measured: a tenth of a training step).
        uses: when a list, every linear map appends its ``LinearUse`` to it.
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
            self.uses.append(LinearUse(weight, bias, scale, bias_scale, inputs, outputs))
        offset = bias if bias is None or bias_scale == 1 else bias_scale * bias
        return Jet(outputs, self.plan, offset, self.uses)

    def map(self, activation: Activation) -> Jet:
        """Apply an elementwise function to all streams by the formula of Faa di Bruno."""
        value, *higher = self.streams.unbind(0)
        if self.offset is not None:
            value = value + self.offset
        f = activation(value, self.plan.max_order)
        streams = [f[0]]
        for start, order in self.plan.chains():
            streams += _compose(f, higher[start - 1 : start - 1 + order])
        return Jet(torch.stack(streams), self.plan, None, self.uses)

    def resolve(self) -> Tensor:
        """The streams with the pending offset added, ``[S, N, width]``."""
        if self.offset is None:
            return self.streams
        return torch.cat([self.streams[:1] + self.offset, self.streams[1:]])


def _compose(f: list[Tensor], z: list[Tensor]) -> list[Tensor]:
    """Derivatives of order 1..len(z) of f(z(s)) from those of f and of z."""
    out = [f[1] * z[0]]
    if len(z) >= 2:
        out.append(f[2] * z[0] * z[0] + f[1] * z[1])
    if len(z) >= 3:
        out.append(f[3] * z[0] ** 3 + 3 * f[2] * z[0] * z[1] + f[1] * z[2])
    if len(z) >= 4:
        out.append(
            f[4] * z[0] ** 4 + 6 * f[3] * z[0] ** 2 * z[1] + f[2] * (3 * z[1] * z[1] + 4 * z[0] * z[2]) + f[1] * z[3]
        )
    return out
