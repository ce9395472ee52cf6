"""Streams of an arbitrary function by nested forward-mode differentiation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ntkrun.jets.plan import StreamPlan


def nested_streams(function: Callable[[Tensor], Tensor], x: Tensor, plan: StreamPlan) -> Tensor:
    """The streams that Taylor mode would give, for a network of any build.

    The cost grows like ``2^k`` with the order k; networks built from jets are much faster.

    Args:
        function: maps points ``[N, d]`` to outputs ``[N, outputs]``, each row on its own.
        x: points, ``[N, d]``.
        plan: the streams wanted.

    Returns:
        Output streams, ``[S, N, outputs]``.
    """
    streams = [function(x)]
    for direction, order in zip(plan.directions, plan.orders, strict=True):
        tangent = x.new_tensor(direction).expand_as(x)
        derivative = function
        for _ in range(order):
            derivative = _directional(derivative, tangent)
            streams.append(derivative(x))
    return torch.stack(streams)


def _directional(function: Callable[[Tensor], Tensor], tangent: Tensor) -> Callable[[Tensor], Tensor]:
    def derivative(x: Tensor) -> Tensor:
        result: Tensor = torch.func.jvp(function, (x,), (tangent,))[1]
        return result

    return derivative
