"""Streams of an arbitrary function by nested reverse-mode differentiation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ntkrun.backend.transfer import constant
from ntkrun.jets.plan import Direction, StreamPlan

Chain = Callable[[Tensor], tuple[Tensor, ...]]
"""Maps points ``[N, d]`` to a function and its first derivatives along a line, ``[N]`` each."""


def nested_streams(function: Callable[[Tensor], Tensor], x: Tensor, plan: StreamPlan) -> Tensor:
    """The streams that Taylor mode would give, for a network of any build.

    Reverse mode is used throughout, since some of torch's functions have no forward-mode rule for their
    own gradients. The cost grows exponentially with the order; networks built from jets are much faster.

    Args:
        function: maps points ``[N, d]`` to outputs ``[N, outputs]``, each row on its own.
        x: points, ``[N, d]``.
        plan: the streams wanted.

    Returns:
        Output streams, ``[S, N, outputs]``.
    """
    values = function(x)
    columns = [_output_streams(function, i, x, plan) for i in range(values.shape[1])] if plan.streams > 1 else []
    return torch.cat([values[None], torch.stack(columns, dim=-1)]) if columns else values[None]


def _output_streams(function: Callable[[Tensor], Tensor], output: int, x: Tensor, plan: StreamPlan) -> Tensor:
    """All streams but the value of one output, ``[S - 1, N]``."""
    powers: dict[tuple[Direction, int], Tensor] = {}
    for direction, order in plan.reach().items():
        chain: Chain = lambda z: (function(z)[:, output],)  # noqa: E731
        for _ in range(order):
            chain = _with_next(chain, constant(direction, x))
        powers.update({(direction, k): power for k, power in enumerate(chain(x))})
    streams = [
        powers[direction, k]
        for direction, order in zip(plan.directions, plan.orders, strict=True)
        for k in range(1, order + 1)
    ]
    for parts in plan.collapsed:
        terms = [factor * powers[direction, order] for direction, order, factor in parts]
        streams.append(torch.stack(terms).sum(0))
    return torch.stack(streams)


def _with_next(chain: Chain, direction: Tensor) -> Chain:
    """The chain with the directional derivative of its last member added."""

    def total(z: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        members = chain(z)
        return members[-1].sum(), members

    def longer(z: Tensor) -> tuple[Tensor, ...]:
        gradient, members = torch.func.grad(total, has_aux=True)(z)
        return (*members, gradient @ direction)

    return longer
